"""Explains why a statement cannot run, which earlier one caused it, and what to do."""
