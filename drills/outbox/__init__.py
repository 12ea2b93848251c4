"""The outbox: delivery, order, claims and failures of events."""
