"""The gate disturbed: killed, raced, given evidence that is missing, old or foreign. It holds, or acts exactly once."""
