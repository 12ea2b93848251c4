"""Reads what is rehearsed: folders of migrations, psql commands, statements, PL/pgSQL bodies. Runs nothing."""
