"""The operator's commands: act by hand, hand over a verdict, look, lint, fill in the checklist."""
