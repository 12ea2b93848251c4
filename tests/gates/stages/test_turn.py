"""Two runs never examine one deployment at once: the second one looks at nothing, and holds."""

import dataclasses
import datetime as dt
from pathlib import Path

import pytest

from gates.decision.decide import decide
from gates.decision.policy_file import parse
from gates.deployment.sql.database import connect, execute, value
from gates.deployment.target import Target
from gates.evidence import CheckSpec, Evidence, Outcome, Severity, TargetKind, Where
from gates.evidence_file import read_lines
from gates.stages.context import Context
from gates.stages.turn import ANOTHER_RUN, SPEC, Turn
from gates.verdict import Decision
from tests.waiting import until

DRILL = CheckSpec("drill/small/one", "c", "c", Severity.PAGE, Where.READ_ONLY)
LOCKS = "select count(*) from pg_locks where locktype = 'advisory' and granted"
HASTE_S = 0.2


@pytest.fixture
def context(tmp_path: Path, migrated_url: str) -> Context:
    """A run against a fresh database."""
    target = Target(TargetKind.STAGING, "http://unset.invalid", database_url=migrated_url, release="r1")
    settings = parse("version: 1\n", "gate.yaml", tmp_path, dt.date(2026, 1, 1)).settings
    return Context(target, settings, tmp_path, "run", catalogue=(SPEC, DRILL))


def other(one: Context) -> Context:
    """A second run against the same database."""
    folder = one.out / "other"
    folder.mkdir(exist_ok=True)
    return dataclasses.replace(one, out=folder)


def seen(one: Context) -> list[Evidence]:
    return read_lines(one.evidence)


def test_the_second_of_two_runs_holds_and_cites_the_first(context: Context) -> None:
    """Its checks are blocked by that one cause; after both a new run gets its turn."""
    second = other(context)
    with Turn(context) as mine, Turn(second) as theirs:
        assert (mine.busy, theirs.busy) == (False, True)
        theirs.block()
    assert [(e.check, e.outcome) for e in seen(context)] == [(SPEC.id, Outcome.PASS)]
    lines = seen(second)
    assert [(e.check, e.outcome, e.blocked_by) for e in lines] == [
        (SPEC.id, Outcome.UNKNOWN, ""),
        (DRILL.id, Outcome.UNKNOWN, SPEC.id),
    ]
    file = parse("version: 1\n", "gate.yaml", context.out, dt.date(2026, 1, 1))
    policy = file.policy(context.catalogue, TargetKind.STAGING, "r1", deep=False)
    verdict = decide(lines, policy, dt.datetime.now(dt.UTC))
    assert verdict.decision is Decision.HOLD
    assert ANOTHER_RUN in verdict.reason
    with Turn(second) as again:
        assert not again.busy


def test_the_turn_is_kept_while_no_transaction_lasts(context: Context, migrated_url: str) -> None:
    """The lock outlives each renewed transaction, and no other run gets in between."""
    started = "select xact_start::text from pg_stat_activity where state like 'idle in%'"
    with connect(migrated_url) as looking, Turn(context, renew_s=HASTE_S):
        first = value(looking, started)
        until(lambda: value(looking, started) not in {first, None}, what="another transaction")
        with Turn(other(context)) as second:
            assert second.busy
    assert [e.outcome for e in seen(context)] == [Outcome.PASS]


def test_a_restarted_database_does_not_cost_the_turn(context: Context, migrated_url: str) -> None:
    """After its connection was broken, the lock is taken again without a finding."""
    with connect(migrated_url) as looking, Turn(context, renew_s=HASTE_S):
        execute(looking, "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'")
        until(lambda: value(looking, LOCKS) == 1, what="the lock")
    assert [e.outcome for e in seen(context)] == [Outcome.PASS]


def test_a_turn_that_was_lost_is_unknown(context: Context, migrated_url: str) -> None:
    """If another run took the lock meanwhile, this run cannot promote."""
    with connect(migrated_url) as thief, Turn(context, renew_s=HASTE_S) as mine:
        execute(thief, "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'")
        execute(thief, "select pg_advisory_lock(hashtextextended('replaygate run', 0))")
        until(lambda: mine.lost, what="the loss")
    assert [e.outcome for e in seen(context)][-1] is Outcome.UNKNOWN


def test_without_a_database_it_is_unknown(context: Context) -> None:
    """Without a lock nobody is kept out, so the check is unknown."""
    for url, words in (("", "blocked by preflight/database"), ("postgresql://x@127.0.0.1:1/x", "cannot be told")):
        one = dataclasses.replace(other(context), target=dataclasses.replace(context.target, database_url=url))
        with Turn(one) as turn:
            assert not turn.busy
        last = seen(one)[-1]
        assert last.outcome is Outcome.UNKNOWN
        assert words in last.message
