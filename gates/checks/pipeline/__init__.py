"""Checks whose outcome is known before they run: what the gate puts through its own pipeline in every run."""
