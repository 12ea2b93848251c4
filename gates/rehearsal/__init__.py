"""`gate rehearse`: a folder of migrations on a throw-away PostgreSQL, statement by statement, before the deploy."""
