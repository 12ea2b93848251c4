"""The short drill of the checklist, for a deployment that gives no SQL."""
