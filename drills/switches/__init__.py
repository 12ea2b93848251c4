"""Flags and pauses: who is switched off, and what happens to their events."""
