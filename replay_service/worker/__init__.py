"""The outbox worker: drains ordinary events by the statement, leases the others, settles replay runs."""
