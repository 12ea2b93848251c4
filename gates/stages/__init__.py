"""The stages of a run: each observes, as a subprocess where a tool does the work, and returns or leaves evidence."""
