"""The embedded stack: PostgreSQL and the reference as subprocesses, never imported, which leave nothing behind."""
