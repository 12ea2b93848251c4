"""Drives the load on Locust and measures it: users, schedules, connections, samples, pollers."""
