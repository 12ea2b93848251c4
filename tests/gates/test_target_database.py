"""The SQL door reads what a server says, whatever it is set up to say."""

from __future__ import annotations

import datetime as dt

from gates.target.database import session, value
from tests.postgres_fixture import PgServer

SETTINGS = ("datestyle = 'German, DMY'", "intervalstyle = 'iso_8601'", "bytea_output = 'escape'")


def test_values_are_read_under_any_settings(pg_server: PgServer) -> None:
    """A database whose dates, intervals and bytes are written in another style is read all the same."""
    name = pg_server.create_database()
    try:
        with session(pg_server.url("postgres")) as connection:
            for setting in SETTINGS:
                connection.execute(f'alter database "{name}" set {setting}'.encode())
        with session(pg_server.url(name)) as connection:
            assert isinstance(value(connection, "select clock_timestamp()"), dt.datetime)
            assert value(connection, "select interval '90 minutes'") == dt.timedelta(minutes=90)
            assert value(connection, r"select '\x00ff'::bytea") == b"\x00\xff"
    finally:
        pg_server.drop_database(name)
