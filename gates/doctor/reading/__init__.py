"""Reads a deployment, read-only: its catalogue, its document, what it answers. Judges nothing."""
