"""The gate disturbed: killed, raced, given missing, old or foreign evidence. It must hold, or act exactly once."""
