"""Metrics: what they count, and how they are labelled."""
