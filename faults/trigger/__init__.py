"""Faults planted in the database: a trigger that meddles, a function that answers wrongly, by promise."""
