"""A PostgreSQL for one rehearsal, with what a platform has before the first migration."""
