"""The only code that changes a target, apart from drills and load."""
