"""Checks and rules for other tools: psql, Prometheus, and the pages of docs/. Pure."""
