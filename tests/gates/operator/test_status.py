"""`gate status`: what it shows; what it cannot see is unknown, and never a traceback."""

import datetime as dt
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from gates.deployment.target import Target
from gates.evidence import TargetKind
from gates.operator import status
from gates.operator.status import Section, as_json, as_tables, look, plain, queries
from gates.proof.workbench.servers import Reply, serve
from gates.stack import seed
from tests.gates.gate_process import gate
from tests.postgres_fixture import TEMPLATE, PgServer, sql_at

COMPANY = "00000000-0000-4000-8000-000000000004"
SECRET = "planted-secret-0123456789"
NOTHING = Target(TargetKind.PRODUCTION)


@pytest.fixture(scope="module")
def database(pg_server: PgServer) -> Iterator[str]:
    """A database with the reference's history."""
    with pg_server.database(TEMPLATE) as name:
        seed.write(pg_server.url(name), COMPANY)
        yield name


def seen(target: Target, folder: Path) -> dict[str, Section]:
    return {s.name: s for s in look(target, folder, folder / "history.ndjson", "t")}


def test_every_query_is_shown_with_a_title(pg_server: PgServer, database: str, tmp_path: Path) -> None:
    """On a healthy database no SQL section is unknown."""
    found = seen(Target(TargetKind.STAGING, database_url=pg_server.url(database)), tmp_path)
    names = {name for name, _, _ in queries()}
    assert names == {p.stem for p in status.QUERIES.glob("*.sql")}
    assert {n: found[n].unknown for n in names if found[n].unknown} == {}
    assert all(s.title for s in found.values())
    assert {row["key"] for row in found["rollout"].rows} >= {"outbox.enabled", "dlq.replay.enabled"}
    assert found["sight"].rows


def test_pauses_limits_and_operations_are_what_tables_hold(pg_server: PgServer, database: str, tmp_path: Path) -> None:
    """A used-up limit says when it is free again; a step has its person and reason."""
    url = pg_server.url(database)
    key = f"replay:{COMPANY}:192.0.2.77"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "insert into public.edge_rate_limits (key, hits) values (%s, array[now() - interval '9 minutes',"
            " now() - interval '2 minutes', now() - interval '1 minute', now()])",
            (key,),
        )
        connection.execute(
            "insert into public.audit_logs (action, actor, scope, target_count, success_count, failure_count, metadata)"
            " values ('flag_promoted', 'gate:ann', 'all', 1, 1, 0, %s)",
            (json.dumps({"key": "outbox.enabled", "from": 10, "to": 50, "release": "r1", "reason": "good"}),),
        )
        connection.execute(
            "update public.agent_controls set agents_paused = true, pause_reason = 'a test' where company_id is null"
        )
    found = seen(Target(TargetKind.STAGING, database_url=url), tmp_path)
    used = next(r for r in found["rate_limits"].rows if r["key"] == key)
    assert (used["hits_5m"], used["left_5m"], bool(used["room_at"])) == (3, 0, True)
    step = found["operations"].rows[0]
    assert (step["actor"], step["from_percent"], step["to_percent"], step["reason"]) == ("gate:ann", "10", "50", "good")
    assert (found["pauses"].rows[0]["agents_paused"], found["pauses"].rows[0]["pause_reason"]) == (True, "a test")


def test_a_login_that_sees_no_rows_says_so(pg_server: PgServer, database: str, tmp_path: Path) -> None:
    """Hidden rows must not look like an empty queue."""
    sql_at(
        pg_server.url(database),
        "drop role if exists blinded",
        "create role blinded login password 'blinded-pw'",
        "grant usage on schema public to blinded",
        "grant select on all tables in schema public to blinded",
    )
    blinded = psycopg.conninfo.make_conninfo(pg_server.url(database), user="blinded", password="blinded-pw")
    found = seen(Target(TargetKind.STAGING, database_url=blinded), tmp_path)
    sql_at(pg_server.url(database), "drop owned by blinded", "drop role blinded")
    assert "What follows may be less than there is" in found["sight"].unknown


def test_a_missing_table_is_unknown_and_the_rest_is_shown(pg_server: PgServer, tmp_path: Path) -> None:
    """One query that cannot be run does not take the others with it."""
    with pg_server.database(TEMPLATE) as name:
        sql_at(pg_server.url(name), "drop table public.edge_rate_limits cascade")
        found = seen(Target(TargetKind.STAGING, database_url=pg_server.url(name)), tmp_path)
    assert "edge_rate_limits" in found["rate_limits"].unknown
    assert not found["rollout"].unknown


def test_looking_writes_nothing(
    pg_server: PgServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session refuses queries that write."""
    monkeypatch.setattr(status, "queries", lambda: [("bad", "Writes.", "delete from public.companies returning id")])
    found = seen(Target(TargetKind.STAGING, database_url=pg_server.url(database)), tmp_path)
    assert "read-only" in found["bad"].unknown


def test_without_a_target_everything_is_unknown_with_its_reason(tmp_path: Path) -> None:
    """Without a target, or an answer, each section is unknown, the reason is shown, and no secret is."""
    away = Target(
        TargetKind.STAGING, "http://127.0.0.1:9", (SECRET,), database_url=f"postgresql://u:{SECRET}@127.0.0.1:9/x"
    )
    for target, said in ((NOTHING, "is not set"), (away, "refused")):
        found = seen(target, tmp_path)
        assert all(s.unknown for s in found.values())
        assert said in found["rollout"].unknown
        assert SECRET not in as_json(list(found.values())) + as_tables(list(found.values()))


@pytest.mark.parametrize(
    ("told", "unknown"),
    [(b'{"release":"r1","commit":"c"}', False), (b"{}", True), (b'{"release":null}', True), (b"<p>Sign in</p>", True)],
)
def test_a_version_that_names_no_release_is_unknown(told: bytes, unknown: bool) -> None:
    """What the pages answered is shown all the same, and the exit code is not that of a target that was seen."""
    with serve(lambda asked: Reply(200, (), told if asked.path == "/version" else b"")) as base:
        done = gate("status", "--json", environ={"BASE_URL": base, "GATE_TARGET": "staging"})
        shown = gate("status", environ={"BASE_URL": base, "GATE_TARGET": "staging"})
    found = json.loads(done.stdout)["instances"]
    assert (bool(found["rows"]), "unknown" in found) == (True, unknown)
    assert ("/version names no release" in shown.stdout) == unknown
    assert done.returncode == 10


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        (Decimal("2.50"), 2.5),
        (Decimal(7), 7),
        (Decimal("Infinity"), "inf"),
        (Decimal("NaN"), "nan"),
        (Decimal("1e30"), 1e30),
        (Decimal("1e100000"), "inf"),
        (float("-inf"), "-inf"),
        (2**70, "a whole number of 71 bits"),
        (dt.timedelta(minutes=2), 120.0),
        (dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.timezone(dt.timedelta(hours=2))), "2026-01-02T01:04:05+00:00"),
        (dt.date(2026, 1, 2), "2026-01-02"),
    ],
)
def test_values_of_the_database_as_json(value: object, shown: object) -> None:
    """Numbers stay numbers, times are UTC, lengths of time are seconds."""
    assert plain(value) == shown


def test_a_table_cannot_command_the_terminal() -> None:
    """Escape sequences and line breaks of the target are text; wide cells are cut, many rows are counted."""
    rows = tuple({"reason": f"\x1b[31m{i}\nline " + "x" * 200, "n": None} for i in range(30))
    text = as_tables([Section("s", "Title.", rows), Section("e", "Empty."), Section("u", "Away.", unknown="why\x1b")])
    assert "\x1b" not in text
    assert "… and 10 more" in text
    assert "Empty.\n  none\n" in text
    assert max(map(len, text.splitlines())) < 80


def test_the_command_exits_by_what_it_could_see(pg_server: PgServer, database: str, tmp_path: Path) -> None:
    """Nothing to look at is 3, an unknown part is 10; stdout has one JSON object."""
    assert gate("status", cwd=tmp_path).returncode == 3
    done = gate("status", "--json", cwd=tmp_path, environ={"DATABASE_URL": pg_server.url(database)})
    assert done.returncode == 10
    assert "Traceback" not in done.stderr
    data = json.loads(done.stdout)
    assert "BASE_URL is not set" in data["instances"]["unknown"]
    assert data["rollout"]["rows"]
