"""The drill stage: how many drills run at once."""

from pathlib import Path

import pytest

from gates.decision.policy_file import Settings
from gates.deployment.sql import database
from gates.deployment.sql.database import SESSION, TRANSACTION, execute, session, value
from gates.deployment.target import Target
from gates.deployment.tenants.tenants import Tenants
from gates.evidence import Evidence, Outcome, TargetKind
from gates.stages.context import Context
from gates.stages.distance import stretched
from gates.stages.drill import MOST_BESIDE, MOST_LENT, MOST_WORKERS, beside_for, beside_load, drill, workers_for
from gates.stages.preflight.database import DATABASE, ROOM, database_lines
from gates.stages.preflight.endpoints import REACHABLE
from gates.stages.preflight.looks import TRIP_MS
from tests.postgres_fixture import PgServer

USUAL = Settings()


def answering(answer_ms: float, folder: Path, settings: Settings = USUAL, url: str = "") -> Context:
    """A run whose target's connection opened and answered in `answer_ms`: two trips."""
    context = Context(Target(TargetKind.STAGING, database_url=url), settings, folder, "run")
    context.write([Evidence(REACHABLE.id, Outcome.PASS, samples=1, details={TRIP_MS: answer_ms / 2})])
    return context


@pytest.mark.parametrize(
    ("policy", "answer_ms", "workers"),
    [(2, 3.0, 2), (2, 19.0, 2), (2, 120.0, 8), (2, 4000.0, MOST_WORKERS), (16, 120.0, 16)],
)
def test_a_slow_target_is_drilled_by_more_at_once(policy: int, answer_ms: float, workers: int, tmp_path: Path) -> None:
    """The slower the answers, the more workers, up to a limit and never fewer than the policy says."""
    assert workers_for(answering(answer_ms, tmp_path, Settings(drill_workers=policy))) == workers


@pytest.mark.parametrize(("answer_ms", "beside"), [(3.0, 0), (99.0, 0), (100.0, 1), (400.0, 4), (4000.0, MOST_BESIDE)])
def test_a_far_target_is_given_more_requests_and_no_more_sessions(
    answer_ms: float, beside: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drills without SQL get extra workers, beyond the limit that database sessions set."""
    monkeypatch.setattr(database, "_POOLED", {"postgresql://pooler": SESSION})
    context = answering(answer_ms, tmp_path, url="postgresql://pooler")
    assert beside_for(context) == beside
    assert workers_for(context) <= MOST_WORKERS


@pytest.mark.parametrize(("answer_ms", "beside"), [(3.0, 2), (40.0, 4), (4000.0, MOST_WORKERS + MOST_BESIDE)])
def test_few_drills_run_beside_the_load_of_a_near_target(answer_ms: float, beside: int, tmp_path: Path) -> None:
    """More if it is distant: they wait most of the time. Never more than without a load."""
    assert beside_load(answering(answer_ms, tmp_path)) == beside


@pytest.mark.parametrize(("answer_ms", "limit_s"), [(3.0, 182), (250.0, 360), (5200.0, 180)])
def test_a_slow_target_gets_no_more_time(answer_ms: float, limit_s: int, tmp_path: Path) -> None:
    """A distant target gets more time; one that takes seconds to answer is slow and does not."""
    assert stretched(answering(answer_ms, tmp_path), 180.0) == limit_s


@pytest.mark.parametrize(("lent", "workers"), [(TRANSACTION, MOST_LENT), (SESSION, MOST_WORKERS)])
def test_a_pooler_that_lends_by_transaction_has_room_for_more(
    lent: str, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A waiting drill holds no session there, so more drills run at once."""
    monkeypatch.setattr(database, "_POOLED", {"postgresql://pooler": lent})
    assert workers_for(answering(4000.0, tmp_path, url="postgresql://pooler")) == workers


@pytest.mark.parametrize(("sessions", "workers"), [(0, MOST_WORKERS), (20, 7), (15, 4), (8, 1), (400, MOST_WORKERS)])
def test_a_login_with_few_sessions_is_drilled_by_fewer(sessions: int, workers: int, tmp_path: Path) -> None:
    """`drill_sessions` limits the workers, since a pooler does not show its limit."""
    assert workers_for(answering(400.0, tmp_path, Settings(drill_sessions=sessions))) == workers


@pytest.mark.parametrize(("room", "workers"), [(100, 8), (30, 8), (20, 4), (9, 1), (0, 1), (None, 8)])
def test_a_server_with_few_connections_is_drilled_by_fewer(room: int | None, workers: int, tmp_path: Path) -> None:
    """Each drill may need three sessions and the gate some more; the rest is left to users."""
    context = Context(Target(TargetKind.STAGING), Settings(drill_workers=8), tmp_path, "run")
    context.write([Evidence(DATABASE.id, Outcome.PASS, samples=1, details={ROOM: room})])
    assert workers_for(context) == workers


def test_a_limit_of_the_login_is_seen_as_room(pg_server: PgServer, migrated_db: str) -> None:
    """The room is the least of what server, database and login have left."""
    target = Target(TargetKind.STAGING, database_url=pg_server.url(migrated_db, "replay_gate"))
    with session(pg_server.url(migrated_db)) as owner:
        free = database_lines(target)[0].details[ROOM]
        assert isinstance(free, int)
        assert 20 < free < 400
        owner.execute(f'alter database "{migrated_db}" connection limit 9'.encode())
        assert database_lines(target)[0].details[ROOM] == 7  # the owner's and its own are taken


def test_without_a_first_answer_the_policy_decides(tmp_path: Path) -> None:
    """Without a measured answer the number of workers is the policy's."""
    context = Context(Target(TargetKind.STAGING), Settings(drill_workers=3), tmp_path, "run")
    assert workers_for(context) == 3


def test_what_an_ended_drill_left_is_removed_with_its_rows(migrated_url: str, tmp_path: Path) -> None:
    """The stage removes tenants that a killed drill left, and no others."""
    context = Context(Target(TargetKind.STAGING, database_url=migrated_url), Settings(), tmp_path, "run")
    with session(migrated_url) as connection:
        tenants = Tenants(connection, "gone")
        left, other = tenants.create(label="left"), tenants.create(label="other")
        tenants.add_items(left, 2)
        context.companies.write_text(f"{left}\n", encoding="utf-8")
        drill(context)
        names = "select id::text as id from public.companies where id = any(%s::uuid[])"
        assert [row["id"] for row in execute(connection, names, [left, other])] == [other]
        assert value(connection, "select count(*) from public.dead_letter_queue where company_id = %s", left) == 0
