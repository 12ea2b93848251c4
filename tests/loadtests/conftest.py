"""The database of a load."""

from collections.abc import Iterator

import pytest

from gates.deployment.sql.database import Connection, connect
from tests.loadtests.load_database import set_flag


@pytest.fixture
def db(migrated_url: str) -> Iterator[Connection]:
    """A connection to a fresh database with the outbox on for everybody."""
    connection = connect(migrated_url)
    for key in ("outbox.enabled", "dlq.replay.enabled"):
        set_flag(connection, key, 100)
    yield connection
    connection.close()
