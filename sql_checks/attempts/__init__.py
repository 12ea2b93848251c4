"""Tries what tenants may do, and rolls it back: many statements in one round trip, each with its result."""
