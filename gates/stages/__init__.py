"""The stages of a run: each observes, as a subprocess if a tool does the work, and returns or leaves evidence."""
