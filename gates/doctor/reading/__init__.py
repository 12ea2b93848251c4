"""Reads a deployment, read-only: its catalogue, its document, its answers. Judges nothing."""
