"""`gate rehearse`: runs a folder of migrations on a throw-away PostgreSQL, one by one, before the deploy."""
