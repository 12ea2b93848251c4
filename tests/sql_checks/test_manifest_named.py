"""A deployment's own manifest: changes are drift, partitions that come and go are not."""

import psycopg
import pytest
from psycopg.rows import dict_row

from gates.contract.names import names_of
from gates.deployment.dialect.current import use
from gates.deployment.sql.database import session
from gates.evidence import Severity
from sql_checks.fingerprint import Manifest, compare, other_release, read_schema
from tests import renamed

GIVEN = {k: v for k, v in renamed.names().items() if k != "roles"}


@pytest.fixture
def url(migrated_url: str) -> str:
    """A renamed database with a table that is split by day; its names are in use."""
    with psycopg.connect(migrated_url, row_factory=dict_row) as connection:
        renamed.rename(connection, roles=False)
        connection.execute("create table ops.measurements (day date not null, n int) partition by range (day)")
        connection.execute("create index on ops.measurements (day)")
        connection.execute("create table app.replays (id int)")  # as one of ops is called
    use(names_of(GIVEN))
    return migrated_url


def schema(url: str) -> Manifest:
    with session(url, read_only=True) as connection:
        return read_schema(connection)


def drift(url: str, before: Manifest, *changes: str) -> dict[str, Severity]:
    with psycopg.connect(url, autocommit=True) as connection:
        for change in changes:
            connection.execute(change.encode())
    after = schema(url)
    return {d.name: d.severity for kind in before.kinds for d in compare(kind, before.kinds[kind], after.kinds[kind])}


def test_drift_is_judged_against_the_deployments_own(url: str) -> None:
    """Tables of one name in two schemas are two; a new partition is no drift; a lost policy and a new table are."""
    before = schema(url)
    assert {"ops.replays.id", "app.replays.id", "ops.failed_jobs.retries", "work.fact_id"} <= set(
        before.kinds["columns"]
    )
    assert other_release(before, before.migrations) == ""
    partition = "create table ops.day_1 partition of ops.measurements for values from ('2026-01-01') to ('2026-01-02')"
    assert drift(url, before, partition) == {}
    lost = "alter table ops.failed_jobs disable row level security"
    assert drift(url, before, lost) == {"ops.failed_jobs": Severity.PAGE}
    found = drift(
        url, before, "alter table ops.failed_jobs enable row level security", "create table app.notes (n int)"
    )
    assert set(found.values()) == {Severity.WARN}
    assert "app.notes.n" in found
