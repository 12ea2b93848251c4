"""Drives the load on Locust and measures it: users, schedules, connections, samples, what is polled meanwhile."""
