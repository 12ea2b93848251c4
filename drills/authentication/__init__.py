"""Signed requests: which signatures open the door, and which do not."""
