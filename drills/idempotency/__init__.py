"""Idempotency keys: a request that is sent again has no second effect."""
