"""Queries stay flat as data grows: no sequential scan of a growing table, shown by EXPLAIN on 100,000 real rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.sql_stage import fill
from gates.target.database import Connection, execute
from sql_checks.rulefile import read_all_rules
from sql_checks.spotfile import read_folder
from sql_checks.sqlsession import SqlSession
from tests.postgres_fixture import TEMPLATE, PgServer

ROWS = 100_000
GROWING = {"audit_logs", "event_outbox", "events", "agent_tasks", "dead_letter_queue"}
"""Tables that grow with traffic. Runs grow with the hands of operators; all others with tenants."""

QUERIES = {
    **{f"{s.spec.id} {part}": text for s in read_folder() for part, text in (("rows", s.violations), ("seen", s.seen))},
    **{r.spec.id: r.query for r in read_all_rules()},
}


@pytest.fixture(scope="module")
def large(pg_server: PgServer) -> Iterator[Connection]:
    """A database with 100,000 rows in each growing table, analysed."""
    name = pg_server.create_database(TEMPLATE)
    fill(pg_server.url(name), ROWS)
    session = SqlSession(pg_server.url(name))
    yield session.connection
    session.close()
    pg_server.drop_database(name)


def scans(node: dict[str, Any], limited: bool = False) -> Iterator[str]:
    """Growing tables that a plan reads from end to end. Right under a LIMIT a scan stops by itself."""
    if node["Node Type"] in {"Seq Scan", "Parallel Seq Scan"} and node["Relation Name"] in GROWING and not limited:
        yield f"{node['Relation Name']} ({node.get('Filter', 'no filter')})"
    for child in node.get("Plans", ()):
        yield from scans(child, limited=node["Node Type"] == "Limit")


@pytest.mark.parametrize("name", list(QUERIES))
def test_no_growing_table_is_scanned(name: str, large: Connection) -> None:
    """No query of a check or a rule reads a growing table from end to end."""
    plan = execute(large, f"explain (format json) {QUERIES[name]}")[0]["QUERY PLAN"]
    assert isinstance(plan, list)
    assert list(scans(plan[0]["Plan"])) == []


def test_the_scan_is_seen_where_there_is_one(large: Connection) -> None:
    """The control: a query that scans is found out."""
    plan = execute(large, "explain (format json) select count(*) from public.event_outbox where payload = '{}'")
    found = plan[0]["QUERY PLAN"]
    assert isinstance(found, list)
    assert list(scans(found[0]["Plan"]))
