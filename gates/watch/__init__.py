"""Scheduled canary checks: rounds, incidents, trends, history and how they are told."""
