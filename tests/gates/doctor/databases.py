"""Databases for the doctor's tests, made from schemas/ or from any SQL."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from gates.contract.contract import contract
from gates.deployment.sql.database import connect
from gates.doctor.reading.catalogue import read_schema
from gates.doctor.reading.schema import Schema
from gates.text.own_data import data_of
from tests.postgres_fixture import PgServer, sql_at

SCHEMAS = Path(__file__).with_name("schemas")
TRUTH: dict[str, dict[str, Any]] = data_of(SCHEMAS / "truth.yaml")


@contextmanager
def database(server: PgServer, sql: str = "", template: str = "template0") -> Iterator[str]:
    """The superuser's URL of a new database with this SQL."""
    with server.database(template) as name:
        sql_at(server.url(name), sql)
        yield server.url(name)


def schema_of(url: str) -> Schema:
    """The schema that the doctor reads from a database."""
    with closing(connect(url, read_only=True)) as connection:
        return read_schema(connection, contract())


def schema_named(server: PgServer, name: str) -> Schema:
    """The schema that the doctor reads from schemas/NAME.sql."""
    with database(server, (SCHEMAS / f"{name}.sql").read_text(encoding="utf-8")) as url:
        return schema_of(url)
