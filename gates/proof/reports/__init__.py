"""A proof for people and for viewers: pure functions of what was found."""
