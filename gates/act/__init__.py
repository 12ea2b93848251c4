"""The hand: the only code that changes a target outside of drills and load."""
