"""Checks with a known outcome, which every run puts through its own pipeline."""
