"""Scheduled canary checks: rounds, incidents, trends, history, and reports of them."""
