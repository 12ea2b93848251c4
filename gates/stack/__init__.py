"""The embedded stack: PostgreSQL and the reference service, as processes that leave nothing behind.

The service is started as a subprocess, never imported.
"""
