"""Reports of a proof for people and viewers: pure functions."""
