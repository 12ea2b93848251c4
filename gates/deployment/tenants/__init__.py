"""The companies of a run, what they own, and live rows that a drill changes and restores."""
