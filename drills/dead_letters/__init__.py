"""The dead letter queue: what a replay takes from it and what it leaves."""
