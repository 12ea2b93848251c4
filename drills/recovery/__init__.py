"""Faults in the middle of the work, and what is left when they stop."""
