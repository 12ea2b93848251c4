"""A database whose flag is on."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.gates.act.flagged import FLAG, Database


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """A connection beside the gate's; the flag is on at 10 %."""
    with psycopg.connect(migrated_url, autocommit=True, row_factory=dict_row) as connection:
        connection.execute("delete from public.feature_flags where key = %s", (FLAG,))
        connection.execute(
            "insert into public.feature_flags (key, enabled, rollout_percentage) values (%s, true, 10)", (FLAG,)
        )
        yield connection
