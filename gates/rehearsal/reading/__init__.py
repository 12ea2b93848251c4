"""Reads what is to be rehearsed: folders of migrations, psql commands, statements, PL/pgSQL bodies. Runs nothing."""
