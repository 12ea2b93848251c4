"""A database whose flag is on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gates.act.flagged import Database, flagged


@pytest.fixture
def database(migrated_url: str) -> Iterator[Database]:
    """A connection beside the gate's; the flag is on at 10 %."""
    with flagged(migrated_url) as connection:
        yield connection
