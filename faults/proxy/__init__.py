"""Faults made by a small proxy before the service: an answer or a request is rewritten, by promise."""
