"""`gate doctor`: what a deployment has of the contract, under which names, what is wrong, and a mapping for review."""
