"""The preflight against small targets and real databases: a wrong release fails, what cannot be seen is unknown."""

import dataclasses
import re
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from gates import config
from gates.catalogue import load
from gates.contract.scope import QUEUE, Scope
from gates.decision.policy_file import Settings
from gates.deployment import capabilities
from gates.deployment.capabilities import claims
from gates.deployment.http import addresses
from gates.deployment.http.client import HttpDoor
from gates.deployment.requests import Answer
from gates.deployment.target import Target
from gates.evidence import Evidence, Outcome, TargetKind
from gates.evidence_file import read_lines
from gates.stages import preflight
from gates.stages.backlog import BACKLOG, BacklogWatch
from gates.stages.context import Context, Progress
from gates.stages.preflight import endpoints
from gates.stages.preflight.database import clock_skew, unverified
from tests.postgres_fixture import PASSWORD, PgServer
from tests.small_target import Answers, serving
from tests.waiting import until

FINE: dict[str, Any] = {"release": "r1", "instance": "i1", "drill_agent": True}
SHUT = 401, {"code": "unauthenticated"}


def looked(folder: Path, target: Target) -> tuple[dict[str, Evidence], Target]:
    context = Context(target, Settings(), folder, "run")
    found = preflight.preflight(context)
    return {e.check.removeprefix("preflight/"): e for e in read_lines(context.evidence)}, found.target


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "READY_PATIENCE_S", 0.1)


def paths(**by_path: tuple[int, Any]) -> Answers:
    return lambda path: by_path.get(path.strip("/"), SHUT if path == "/dlq-replay" else (200, FINE))


def rolling() -> Answers:
    """/version names the previous release every other time."""
    turn = iter(range(10_000))
    return lambda path: (200, {**FINE, "release": f"r{next(turn) % 2}"} if path == "/version" else FINE)


@pytest.mark.parametrize(
    ("release", "answers", "check", "outcome", "words"),
    [
        ("r1", paths(), "release", "pass", ""),
        ("r2", paths(), "release", "fail", "/version says r1; allowed: r2"),
        ("r1", rolling(), "release", "fail", "r0, r1"),
        ("", rolling(), "release", "unknown", "one release"),
        ("r1", paths(version=(404, {})), "release", "unknown", "no release (/version answers 404)"),
        (
            "r1",
            paths(version=(302, {})),
            "release",
            "unknown",
            "no release (/version answers 302, a redirect to nowhere, not followed)",
        ),
        ("r1", paths(version=(200, {"instead": "pwned"})), "release", "unknown", "say no release; allowed"),
        ("r1", paths(version=(200, b"<html>login</html>")), "release", "unknown", "no release"),
        ("r1", paths(version=(200, {"release": 1})), "release", "unknown", "no release"),
        ("r1", paths(version=(200, [])), "release", "unknown", "no release"),
        ("r1", paths(readyz=(503, {"detail": "worker"})), "ready", "fail", "503"),
        ("r1", paths(readyz=(302, {})), "ready", "unknown", "302"),
        ("r1", paths(healthz=(500, {})), "target-reachable", "unknown", "500"),
    ],
)
def test_what_the_target_says_over_http(
    tmp_path: Path, release: str, answers: Answers, check: str, outcome: str, words: str
) -> None:
    """A wrong or mixed release fails; one that is not stated is unknown."""
    with serving(answers) as url:
        found, _ = looked(tmp_path, Target(TargetKind.PRODUCTION, url, release=release))
    assert (found[check].outcome, words in found[check].message) == (outcome, True), found[check]


def test_a_release_that_is_not_named_is_the_one_that_all_instances_say(tmp_path: Path) -> None:
    """Without RELEASE, the release that all instances state is the one of the run."""
    with serving(paths()) as url:
        found, target = looked(tmp_path, Target(TargetKind.PRODUCTION, url))
    assert target.release == "r1"
    assert {e.release for e in found.values()} == {"r1"}


def test_every_address_of_a_name_is_asked_for_its_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients use any address of a name, so each is asked; one where nobody listens is ignored."""
    places = ["127.0.0.1", "127.0.0.9"]
    real = addresses._addresses
    monkeypatch.setattr(addresses, "_addresses", lambda host, *more: places if host == "twin" else real(host, *more))
    with serving(paths()) as url:
        port = int(url.rpartition(":")[2])
        target = Target(TargetKind.PRODUCTION, f"http://twin:{port}", release="r1")
        assert looked(tmp_path, target)[0]["release"].outcome is Outcome.PASS
        with serving(paths(version=(200, {**FINE, "release": "r0"})), "127.0.0.2", port):
            places.append("127.0.0.2")
            found = looked(tmp_path, target)[0]["release"]
    assert (found.outcome, "says r0, r1; allowed: r1" in found.message) == (Outcome.FAIL, True)


@pytest.mark.parametrize("said", ["r\x1b[2J", "r\n::error::x", " r1", "r" * 201, "r\r"])
def test_a_release_that_no_variable_could_hold_is_none(said: str, tmp_path: Path) -> None:
    """Later stages get the release as a variable, so text that no variable may hold is no release."""
    with serving(paths(version=(200, {**FINE, "release": said}))) as url:
        found, target = looked(tmp_path, Target(TargetKind.PRODUCTION, url))
    assert target.release == ""
    assert (found["release"].outcome, "no release" in found["release"].message) == (Outcome.UNKNOWN, True)
    environ = config.environment_of(target, {"PATH": "/usr/bin"})
    assert config.load_target(environ) == target


def test_a_target_that_does_not_answer_blocks_what_comes_after(tmp_path: Path) -> None:
    """Nothing fails; later checks name what blocks them, and missing variables are listed."""
    found, _ = looked(tmp_path, Target(TargetKind.PRODUCTION, "http://127.0.0.1:9"))
    assert {e.outcome for e in found.values()} == {Outcome.UNKNOWN}
    assert found["release"].blocked_by == found["ready"].blocked_by == "preflight/target-reachable"
    assert found["clock-skew"].blocked_by == "preflight/database"
    for name in ("TRANSBOT_HMAC_SECRET", "TEST_COMPANY_ID", "ADMIN_JWT", "DATABASE_URL"):
        assert name in found["variables"].message


def test_a_queue_alone_is_asked_for_no_service(tmp_path: Path) -> None:
    """A policy that claims only a queue is not asked for BASE_URL or secrets."""
    told: list[Progress] = []
    target, scope = Target(TargetKind.PRODUCTION), Scope((QUEUE,))
    context = Context(target, Settings(), tmp_path, "run", load(), scope=scope, progress=told.append)
    preflight.preflight(context)
    lines = read_lines(context.evidence)
    assert not [e.message for e in lines if re.search(r"\bBASE_URL|ADMIN_JWT", e.message)]
    judged = {e.check for e in lines if not e.check.startswith("preflight/capability/")}
    assert told[-1].unknown == len(judged) > 0
    assert judged <= {spec.id for spec in context.applicable(("preflight/",))}


def test_capabilities_are_asked_of_the_target(tmp_path: Path) -> None:
    """`drill_agent` must be exactly true; two sources need an answer from the second one."""
    for said, claimed in (({"drill_agent": True}, True), ({"drill_agent": "true"}, False), ({}, False)):
        folder = tmp_path / str(len(said)) / str(claimed)
        folder.mkdir(parents=True)
        content = {"release": "r1", **said}
        with serving(lambda _path, content=content: (200, content)) as url:  # type: ignore[misc]
            found, _ = looked(folder, Target(TargetKind.PRODUCTION, url))
        assert found["capability/drill-agent"].observed is claimed
        assert found["capability/two-sources"].observed is True


@pytest.mark.parametrize(("status", "seen"), [(200, False), (503, None), (401, None)])
def test_two_sources_are_seen_only_where_their_calls_are_answered_well(
    monkeypatch: pytest.MonkeyPatch, status: int, seen: bool | None
) -> None:
    """A target that admits calls and counts none is still examined; one that refuses them has shown nothing."""
    monkeypatch.setattr(capabilities, "execute", lambda *_: [])
    monkeypatch.setattr(HttpDoor, "send", lambda *_: Answer(status, (), b"{}", 1.0))
    target = Target(TargetKind.STAGING, "http://127.0.0.1:9", hmac_secrets=("0123456789abcdef",))
    assert capabilities._counted_at_one(target, None, str(uuid.uuid4())) is seen  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "text", "claimed"),
    [(200, b"process_resident_memory_bytes 1e6\n", True), (200, b"outbox_pending 1\n", False), (500, b"", None)],
)
def test_a_target_that_shows_its_memory_is_examined_for_leaks(status: int, text: bytes, claimed: bool | None) -> None:
    """The check is not applicable only if the metrics were read and lack the memory."""
    with serving(paths(metrics=(status, text))) as url:
        assert claims(Target(TargetKind.PRODUCTION, url))["memory-metric"] is claimed


NO_CONDITION = """
drop policy replay_gate_sees_all on replay_runs;
create policy none on replay_runs for all to replay_gate with check (true)
"""
AS_A_VIEW = """
alter table replay_runs rename to runs;
create view public.replay_runs with (security_invoker = 1) as select * from public.runs;
grant select on public.replay_runs to replay_gate
"""


# --- over SQL ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [None, "replay_gate"])
def test_logins_that_see_all_rows_pass(tmp_path: Path, pg_server: PgServer, migrated_db: str, role: str | None) -> None:
    """It passes for the superuser and for the least role that a gate needs."""
    found, _ = looked(tmp_path, Target(TargetKind.PRODUCTION, database_url=pg_server.url(migrated_db, role)))
    for check in ("database", "database-role-sees-rows", "clock-skew"):
        assert found[check].outcome is Outcome.PASS, found[check]


@pytest.mark.parametrize("company", ["", "00000000-0000-4000-8000-0000000000aa", "acme"])
def test_a_company_that_is_none_is_told(tmp_path: Path, pg_server: PgServer, migrated_db: str, company: str) -> None:
    """The database check passes, and notes that TEST_COMPANY_ID has no row."""
    target = Target(TargetKind.PRODUCTION, database_url=pg_server.url(migrated_db), test_company_id=company)
    found, _ = looked(tmp_path, target)
    said = str(found["database"].details["nobody"])
    assert found["database"].outcome is Outcome.PASS
    assert said.startswith(f"TEST_COMPANY_ID is {company},") is company.endswith("aa")
    assert bool(said) is company.endswith("aa")


def test_users_without_a_home_see_the_database(tmp_path: Path, gate_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user may have no home directory."""
    monkeypatch.setattr(Path, "home", lambda: pytest.fail("a home is looked for"))
    found, _ = looked(tmp_path, Target(TargetKind.PRODUCTION, database_url=gate_url))
    assert found["database"].outcome is Outcome.PASS


@pytest.mark.parametrize(("seconds", "way"), [(5, "ahead of"), (-5, "behind")])
def test_a_database_of_another_clock_is_unknown(pg_server: PgServer, migrated_db: str, seconds: int, way: str) -> None:
    """The message says which clock is ahead."""
    with psycopg.connect(pg_server.url(migrated_db), row_factory=dict_row) as connection:
        connection.execute(
            "create schema wrong; create function wrong.clock_timestamp() returns timestamptz return "
            f"pg_catalog.clock_timestamp() + interval '{seconds} s'; set search_path = wrong, pg_catalog".encode()
        )
        found = clock_skew(connection)
        connection.rollback()
    assert found.outcome is Outcome.UNKNOWN
    assert re.fullmatch(rf"the database's clock is [45](\.\d+)? s {way} the gate's; allowed: 2 s\..*", found.message)


def test_login_that_row_level_security_blinds_is_unknown(tmp_path: Path, pg_server: PgServer, migrated_db: str) -> None:
    """The login may read every table and sees no rows, so it sees no violations either."""
    name = f"blind_{uuid.uuid4().hex}"
    with psycopg.connect(pg_server.url(migrated_db), autocommit=True) as connection:
        connection.execute(f"create role {name} login password '{PASSWORD}'".encode())
        try:
            connection.execute(f"grant usage on schema public to {name}".encode())
            connection.execute(f"grant select on all tables in schema public to {name}".encode())
            url = pg_server.url(migrated_db, name)
            found, _ = looked(tmp_path, Target(TargetKind.PRODUCTION, database_url=url))
        finally:
            connection.execute(f"drop owned by {name}; drop role {name}".encode())
    sight = found["database-role-sees-rows"]
    assert sight.outcome is Outcome.UNKNOWN
    assert "may hide rows of public.agent_controls, public.agent_tasks" in sight.message


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("drop table public.audit_logs cascade", "audit_logs not found"),
        ("revoke select on events from replay_gate", "may not read public.events"),
        ("drop policy replay_gate_sees_all on dead_letter_queue", "may hide rows of public.dead_letter_queue"),
        (
            "create policy narrow on events as restrictive for select to replay_gate using (event_type = 'x')",
            "may hide rows of public.events",
        ),
        *(
            (
                f"alter policy replay_gate_sees_all on {table} using ({column} is distinct from gen_random_uuid())",
                f"may hide rows of public.{table} from",
            )
            for table in ("feature_flags", "agent_controls", "event_outbox", "dead_letter_queue", "companies")
            for column in (["id"] if table == "companies" else ["company_id"])
        ),
        (NO_CONDITION, "may hide rows of public.replay_runs from"),
        (AS_A_VIEW, "may hide rows of public.replay_runs from"),
        ("alter policy replay_gate_sees_all on audit_logs using (action <> 'x')", "may hide rows of public.audit_logs"),
    ],
)
def test_a_login_that_lost_its_sight_of_one_table_is_unknown(
    tmp_path: Path, gate_url: str, migrated_url: str, statement: str, words: str
) -> None:
    """The table is named, even if the login sees the test company or all rows but one."""
    company = "00000000-0000-4000-8000-0000000000aa"
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute(
            "insert into public.companies (id, name) values (%s, 'a'), (gen_random_uuid(), 'b')", (company,)
        )
        connection.execute(statement.encode())
    found, _ = looked(tmp_path, Target(TargetKind.PRODUCTION, database_url=gate_url, test_company_id=company))
    sight = found["database-role-sees-rows"]
    assert (sight.outcome, words in sight.message) == (Outcome.UNKNOWN, True), sight


def test_a_database_that_does_not_answer_is_unknown_and_its_password_is_not_shown(tmp_path: Path) -> None:
    """The evidence does not contain the password."""
    url = "postgresql://gate:planted-password@127.0.0.1:9/none"
    found, _ = looked(tmp_path, Target(TargetKind.PRODUCTION, database_url=url))
    assert found["database"].outcome is Outcome.UNKNOWN
    assert "planted-password" not in (tmp_path / "evidence.ndjson").read_text(encoding="utf-8")


def test_the_backlog_is_watched_through_a_run(tmp_path: Path, migrated_url: str) -> None:
    """It counts waiting events, not those of a paused tenant; without a database it writes nothing."""
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute("delete from public.feature_flags where key = 'outbox.enabled'")
        connection.execute("insert into public.feature_flags (key, enabled) values ('outbox.enabled', true)")
        on, off = (
            connection.execute("insert into public.companies (name) values ('c') returning id").fetchone() for _ in "ab"
        )
        assert on
        assert off
        connection.execute(
            "insert into public.feature_flags (key, company_id, enabled) values ('outbox.enabled', %s, false)",
            (off[0],),
        )
        for company, count in ((on[0], 3), (off[0], 5)):
            connection.execute(
                "insert into public.event_outbox (company_id, event_type, payload)"
                " select %s, 'x', '{}' from generate_series(1, %s)",
                (company, count),
            )
    context = Context(Target(TargetKind.PRODUCTION, database_url=migrated_url), Settings(), tmp_path, "run")
    with BacklogWatch(context, interval_s=0.01) as watch:
        until(lambda: len(watch._samples) >= 3)
    (line,) = [e for e in read_lines(context.evidence) if e.check == BACKLOG]
    assert line.observed == 3
    without = dataclasses.replace(context, target=Target(TargetKind.PRODUCTION), out=tmp_path / "other")
    with BacklogWatch(without):
        pass
    assert not without.evidence.exists()


def test_the_login_says_what_it_may_become(gate_url: str, migrated_url: str, tmp_path: Path) -> None:
    """A superuser, a member of a superuser role and the gate's least role are told apart."""
    with psycopg.connect(migrated_url, autocommit=True) as owner:
        owner.execute("create role grows login password 'grows-password'")
        owner.execute("grant postgres, pg_write_server_files to grows")
    gate = gate_url
    try:
        found = {}
        for role, url in (
            ("postgres", migrated_url),
            ("replay_gate", gate),
            ("grows", gate.replace(f"replay_gate:{PASSWORD}", "grows:grows-password")),
        ):
            (tmp_path / role).mkdir()
            lines, _ = looked(tmp_path / role, Target(TargetKind.STAGING, database_url=url))
            found[role] = lines["database"].details["login"]
    finally:
        with psycopg.connect(migrated_url, autocommit=True) as owner:
            owner.execute("drop role grows")
    assert found == {
        "postgres": {"name": "postgres", "excess": "is a superuser"},
        "replay_gate": {"name": "replay_gate", "excess": ""},
        "grows": {"name": "grows", "excess": "may become a superuser through pg_write_server_files, postgres"},
    }


@pytest.mark.parametrize(
    ("address", "mode", "said"),
    [
        ("", "prefer", False),  # a Unix socket
        ("127.0.0.1", "disable", False),
        ("::1", "prefer", False),
        ("10.0.0.5", "verify-full", False),
        ("10.0.0.5", "verify-ca", False),
        ("10.0.0.5", "prefer", True),
        ("10.0.0.5", "require", True),
        ("fe80::1%eth0", "disable", True),
    ],
)
def test_a_server_elsewhere_that_is_not_verified_is_named(address: str, mode: str, said: bool) -> None:
    """A remote server that is not verified could be anybody, and is sent the password."""
    told = unverified(address, mode)
    assert (bool(told), mode in told if told else True) == (said, True)
