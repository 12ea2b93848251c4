"""The operator's commands: act by hand, hand over a verdict, look, lint, tick the checklist."""
