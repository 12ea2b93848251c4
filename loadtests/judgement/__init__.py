"""What a run shows: pass, fail or unknown for each threshold. Pure."""
