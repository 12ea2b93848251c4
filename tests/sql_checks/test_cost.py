"""Queries stay flat as data grows: no sequential scan of a growing table, shown by EXPLAIN on 100,000 real rows."""

from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.sql_stage import fill
from gates.contract.fragments import expand
from gates.decision.cohorts import CohortLimits
from gates.deployment.sql.database import Connection, execute, script, sql
from sql_checks import checkpoint
from sql_checks.cohorts.run import OUTBOX_FLAG, statement, told
from sql_checks.spotfile import read_folder
from sql_checks.sqlsession import SqlSession
from tests.postgres_fixture import TEMPLATE, PgServer
from tests.sql_checks.conftest import RULES

ROWS = 100_000
GROWING = {"audit_logs", "event_outbox", "events", "agent_tasks", "dead_letter_queue"}
"""Tables that grow with traffic. Runs grow with the hands of operators; all others with tenants."""

QUERIES = {
    **{f"{s.spec.id} {part}": text for s in read_folder() for part, text in (("rows", s.violations), ("seen", s.seen))},
    **{r.spec.id: r.query for r in RULES.values()},
    **{f"cohorts {name}": statement(name) for name in ("step", "events")},
    "the position of a checkpoint": expand(sql(checkpoint.POSITION), checkpoint.FRAGMENTS),
}


@pytest.fixture(scope="module")
def large(pg_server: PgServer) -> Iterator[SqlSession]:
    """A database with 100,000 rows in each growing table, analysed."""
    with pg_server.database(TEMPLATE) as name:
        fill(pg_server.url(name), ROWS)
        session = SqlSession(pg_server.url(name), settings=told(OUTBOX_FLAG, "10,50,100", CohortLimits()))
        yield session
        session.close()


def scans(node: dict[str, Any], limited: bool = False) -> Iterator[str]:
    """Growing tables that a plan reads completely; directly under a LIMIT a scan ends early."""
    if node["Node Type"] in {"Seq Scan", "Parallel Seq Scan"} and node["Relation Name"] in GROWING and not limited:
        yield f"{node['Relation Name']} ({node.get('Filter', 'no filter')})"
    for child in node.get("Plans", ()):
        yield from scans(child, limited=node["Node Type"] == "Limit")


@pytest.fixture(scope="module", params=[False, True], ids=["first-run", "from-a-checkpoint"])
def prepared(request: pytest.FixtureRequest, large: SqlSession) -> Connection:
    """The connection of a first run, and of one that continues from a checkpoint."""
    with large.snapshot() as connection:
        reached = checkpoint.position(connection, "it")
    assert reached is not None
    settings = reached.settings()
    large.give(settings if request.param else dict.fromkeys(settings, ""))
    return large.connection


def test_no_growing_table_is_scanned(prepared: Connection) -> None:
    """No query of a check or rule reads one completely."""
    found = {name: list(scans(plan_of(prepared, query))) for name, query in QUERIES.items()}
    assert len(found) > 100
    assert {name: tables for name, tables in found.items() if tables} == {}


def test_a_look_at_cohorts_reads_no_table_from_end_to_end(prepared: Connection) -> None:
    """The same in its real transaction, after the statement that prepares the session."""
    with prepared.transaction(force_rollback=True):
        execute(prepared, statement("step"))
        assert list(scans(plan_of(prepared, statement("events")))) == []


PLANTED = {
    "a filter without an index": "select count(*) from public.event_outbox where payload = '{}'",
    "a join with the whole table": "select count(*) from public.agent_tasks join public.companies on name = agent_name",
    "a sub-query that is hashed": """select count(*) from public.companies c
        where c.id not in (select q.company_id from public.dead_letter_queue q where q.status <> 'resolved')""",
    "everything of the trail": "select max(hash) from public.audit_logs",
}


@pytest.mark.parametrize("query", PLANTED.values(), ids=list(PLANTED))
def test_a_scan_is_seen_where_there_is_one(query: str, prepared: Connection) -> None:
    """The control: a query with a full scan is found."""
    assert list(scans(plan_of(prepared, query)))


def plan_of(connection: Connection, query: str, how: str = "analyze false") -> dict[str, Any]:
    """The plan, by default without running it."""
    found = execute(connection, f"explain ({how}, format json) {query}")[0]["QUERY PLAN"]
    assert isinstance(found, list)
    plan: dict[str, Any] = found[0]["Plan"]
    return plan


GROWN = """
    create index on public.replay_runs (company_id, requested_at desc);
    create index on public.audit_logs (action, created_at);
    insert into public.companies (name) values ('the only one');
    analyze public.companies, public.replay_runs, public.audit_logs;
    insert into public.companies (name) select 'drill-' || n from generate_series(1, 1500) n;
    insert into public.replay_runs (company_id, idempotency_key, actor, payload_hash, status, completed_at)
      select id, 'k' || n, 'hmac', '', 'completed', now() from public.companies, generate_series(1, 2) n
      where name like 'drill-%';
    insert into public.audit_logs (action, actor, scope, target_count, success_count, failure_count, metadata)
      select action, 'hmac', company_id::text, 0, 0, 0, '{}' from public.replay_runs,
        unnest(array['dlq_replay_started', 'dlq_replay', 'dlq_replay_completed']) action
      where idempotency_key in ('k1', 'k2');
    insert into public.audit_logs (action, actor, scope, target_count, success_count, failure_count, metadata)
      select 'dlq_replay_started', 'hmac', gen_random_uuid()::text, 0, 0, 0, '{}' from generate_series(1, 2000)"""
"""What drills leave within a minute, where statistics still tell of an empty database and the indexes are another's."""


def test_statistics_of_an_empty_database_multiply_no_rows(pg_server: PgServer) -> None:
    """No spot check pairs all rows of two tables that have grown a thousandfold since they were analysed."""
    with pg_server.database(TEMPLATE) as name:
        session = SqlSession(pg_server.url(name))
        with session.connection.transaction(force_rollback=True):
            execute(session.connection, "set local transaction read write")
            script(session.connection, GROWN)
            execute(session.connection, "set local statement_timeout = '20s'")
            plans = {s.spec.id: plan_of(session.connection, s.violations, "analyze, timing off") for s in read_folder()}
        session.close()
    assert {check: plan["Node Type"] for check, plan in plans.items() if most_rows(plan) > 500_000} == {}


def most_rows(node: dict[str, Any]) -> float:
    """The largest number of rows in any step of the plan, with those that a join discarded."""
    own: float = (node["Actual Rows"] + node.get("Rows Removed by Join Filter", 0)) * node["Actual Loops"]
    return max([own, *map(most_rows, node.get("Plans", ()))])
