"""A draft of gate.yaml: lines with a comment at each guess, and how they come into the file."""
