"""Functions that somebody planted in `public` never run in place of PostgreSQL's own."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from gates.act.flag import Order, look_at
from gates.act.rollout import act
from gates.decision.rules import RolloutPlan
from gates.deployment.sql.database import connect, value
from gates.deployment.tenants.leftovers import take_lease
from gates.proof.workbench.pooler import lacking, pgbouncer
from gates.verdict import Decision, Verdict
from sql_checks.export.psql import spots_to_psql
from sql_checks.rules.file import read_all_rules
from sql_checks.spotfile import read_folder
from sql_checks.sqlsession import SqlSession
from tests.sources import ROOT, below, nodes_of, relative

TRAPS = (
    "hashtextextended(text, integer) returns bigint",
    "make_interval(secs integer) returns interval",
    "format(text, text) returns text",
    "format(text, uuid) returns text",
    "pg_try_advisory_xact_lock(integer) returns boolean",
    "pg_try_advisory_lock(smallint, smallint) returns boolean",
    "count(uuid) returns bigint",
    "set_config(text, text, text) returns text",
    "jsonb_build_array(text, text) returns jsonb",
    "jsonb_build_object(text, bigint) returns jsonb",
    "concat(text, text) returns text",
    "round(double precision, integer) returns numeric",
    "num_nonnulls(timestamptz, timestamptz) returns integer",
)
"""Closer to the arguments of some call of ours than what PostgreSQL has of that name."""

OPERATORS = ("=", "<", ">", "||", "->>")
TABLE = (
    r"companies|feature_flags(?:_status)?|replay_budgets(?:_status)?|edge_rate_limits|replay_runs|audit_logs|"
    r"audit_heads|events|event_outbox|dead_letter_queue|agent_tasks|agent_controls"
)
BARE = re.compile(rf"\b(?:from|join|into|update|lock table|truncate)\s+(?:{TABLE})\b(?=[\s,;()]|$)", re.IGNORECASE)
ROOMS = ("gates", "drills", "loadtests", "sql_checks")


@pytest.fixture(
    params=["directly", pytest.param("through a pooler", marks=pytest.mark.skipif(bool(lacking()), reason=lacking()))]
)
def trapped(migrated_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database with traps in `public`, each of which records that it ran and with whose rights."""
    _plant(migrated_url)
    if request.param == "directly":
        yield migrated_url
    else:
        with pgbouncer(tmp_path, migrated_url, "transaction", ignore="options") as url:
            yield url


def _plant(migrated_url: str) -> None:
    with psycopg.connect(migrated_url, autocommit=True) as owner:
        owner.execute("create table public.sprung (trap text, by_whom text)")
        owner.execute("grant all on public.sprung to public")
        for trap in TRAPS:
            body = f"begin insert into public.sprung values ('{trap}', current_user); return null; end"
            owner.execute(f"create function public.{trap} language plpgsql as $t$ {body} $t$".encode())
        body = "begin insert into public.sprung values ('operator', current_user); return null; end"
        owner.execute(
            "create function public.compared(text, varchar) returns boolean language plpgsql"
            f" as $t$ {body} $t$".encode()
        )
        for sign in OPERATORS:
            arguments = "leftarg = text, rightarg = varchar, function = public.compared"
            owner.execute(f"create operator public.{sign} ({arguments})".encode())
        owner.execute(
            "insert into public.feature_flags (key, enabled, rollout_percentage) values ('outbox.enabled', true, 10)"
            " on conflict (key, company_id) do update set enabled = true, rollout_percentage = 10"
        )


def sprung(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as owner:
        return owner.execute("select * from public.sprung").fetchall()


def test_the_traps_work(trapped: str) -> None:
    """The control: a session with the default search path runs a trap."""
    with psycopg.connect(trapped, autocommit=True, prepare_threshold=None) as plain:
        plain.execute("select hashtextextended('x', 0)")
    assert sprung(trapped)


@pytest.mark.parametrize("decision", [Decision.PROMOTE, Decision.ROLLBACK])
def test_no_act_runs_planted_code(trapped: str, decision: Decision) -> None:
    """A promotion and a rollback by a superuser run no trap."""
    seen = look_at(trapped, "outbox.enabled")
    order = Order(RolloutPlan(settle_s=0, drain_timeout_s=2), "r1", "test", "why", seen)
    assert act(Verdict(decision, "why"), order, trapped).result == "done"
    assert sprung(trapped) == []


def test_no_check_and_no_lease_runs_planted_code(trapped: str) -> None:
    """Spot checks, alert rules and leases run no trap."""
    session = SqlSession(trapped)
    for query in [q for s in read_folder() for q in (s.violations, s.seen)] + [r.query for r in read_all_rules()]:
        with session.snapshot() as connection:
            connection.execute(query.encode())
    session.close()
    lease, _ = take_lease(trapped, "a1")
    if lease is not None:
        lease.release()
    assert sprung(trapped) == []


def test_every_session_is_pinned(migrated_url: str) -> None:
    """The gate's sessions and the psql export look up names in pg_catalog."""
    with connect(migrated_url) as connection:
        assert value(connection, "show search_path") == "pg_catalog,pg_temp"
    assert "set local search_path = pg_catalog, pg_temp;" in spots_to_psql(read_folder())


def _texts(path: Path) -> Iterator[str]:
    """The SQL of a file: a .sql file without comments, or the strings of a Python file without docstrings."""
    if path.suffix == ".sql":
        lines = path.read_text(encoding="utf-8").splitlines()
        yield "\n".join(line for line in lines if not line.startswith("--"))
        return
    nodes = nodes_of(path)
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    prose = {ast.get_docstring(n, clean=False) for n in nodes if isinstance(n, holders)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in prose:
            yield node.value


SQL_FILES = [p for room in ROOMS for p in sorted((ROOT / room).rglob("*.sql")) if " events(bit" not in p.read_text()]


def test_every_table_is_named_with_its_schema() -> None:
    """No statement leaves the schema of a table to the search path."""
    files = [*SQL_FILES, *below(*ROOMS)]
    assert [f"{relative(p)}: {found}" for p in files for text in _texts(p) for found in BARE.findall(text)] == []
    assert BARE.findall("select * from feature_flags")
