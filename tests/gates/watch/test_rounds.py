"""The rounds of the watch: what is kept, what is told, when the flag goes off, and how rounds follow each other."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gates import catalogue, past_decisions
from gates.decision.policy_file import parse
from gates.deployment.target import Target
from gates.errors import CannotWork
from gates.evidence import CheckSpec, Evidence, Outcome, Severity, TargetKind, Where, stamp
from gates.stages.context import Context, StageReport
from gates.stages.suite import SuiteRun
from gates.verdict import Decision
from gates.watch import history, story
from gates.watch import look as looks
from gates.watch.incidents import Patience
from gates.watch.look import Drills, drills_for, plan
from gates.watch.story import FinishedRound, Watch, one_round, rounds
from tests.gates.reports.test_webhook import webhook
from tests.postgres_fixture import TEMPLATE, PgServer

SECRET = "planted-secret-0123456789"
NOWHERE = f"postgresql://u:{SECRET}@127.0.0.1:9/x"
COMPANY = "00000000-0000-4000-8000-000000000004"


def spec(
    check: str, severity: Severity = Severity.PAGE, where: Where = Where.READ_ONLY, phase: str = "main"
) -> CheckSpec:
    return CheckSpec(check, "the claim", "the cost", severity, where, phase=phase)


GRAVE, MILD = spec("sql/spot/grave"), spec("sql/spot/mild", Severity.WARN)
CATALOGUE = (GRAVE, MILD)


class Suites:
    """Stands for the subprocesses of a round: what each check comes to, and what a round was asked to look at."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.asked: list[list[str]] = []
        self.left_out: list[str] = []
        self.born: list[str] = []

    def run(self, suite: SuiteRun, context: Context) -> StageReport:
        checks = [s.id for s in suite.expected]
        self.asked.append(checks)
        self.left_out = context.companies.read_text(encoding="utf-8").split()
        with context.companies.open("a", encoding="utf-8") as out:
            out.writelines(f"{c}\n" for c in self.born)
        lines = [self._line(check, context) for check in checks]
        context.write(lines)
        return StageReport(suite.name, 0.1)

    def _line(self, check: str, context: Context) -> Evidence:
        outcome = self.outcomes.get(check, Outcome.PASS)
        at = stamp(dt.datetime.now(dt.UTC))
        message = "" if outcome is Outcome.PASS else f"{check} by {context.target.hmac_secret}"
        return Evidence(check, outcome, message, samples=1, started_at=at, release=context.target.release)


@pytest.fixture
def suites(monkeypatch: pytest.MonkeyPatch) -> Suites:
    made = Suites()
    monkeypatch.setattr(looks, "run", made.run)
    return made


@pytest.fixture
def watched(tmp_path: Path) -> Watch:
    """A watch over two checks, with a fake in place of the suites. Without a database, preflight can block neither."""
    target = Target(TargetKind.STAGING, hmac_secrets=(SECRET,), release="r1")
    file = parse("version: 1\n", "gate.yaml", tmp_path, dt.date(2026, 1, 1))
    return Watch(target, file, CATALOGUE, tmp_path / "state" / "history.ndjson", drills=Drills.NONE)


def look(watched: Watch, suites: Suites, **outcomes: Outcome) -> FinishedRound:
    """A round in which these checks (by their last word) come to that, and all others pass."""
    suites.outcomes = {f"sql/spot/{name}": outcome for name, outcome in outcomes.items()}
    done = one_round(watched)
    assert done is not None
    return done


def kinds(done: FinishedRound) -> list[tuple[str, str]]:
    return [(c.kind, c.check.rpartition("/")[2]) for c in done.round.changes]


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ({}, "good"),
        ({"mild": Outcome.FAIL}, "doubtful"),
        ({"mild": Outcome.UNKNOWN}, "doubtful"),
        ({"grave": Outcome.UNKNOWN}, "doubtful"),
        ({"grave": Outcome.FAIL}, "failing"),
        ({"grave": Outcome.FAIL, "mild": Outcome.UNKNOWN}, "failing"),
    ],
)
def test_the_state_of_a_round(watched: Watch, suites: Suites, outcomes: dict[str, Outcome], state: str) -> None:
    """good: everything passed; failing: harm was seen; all else is doubtful."""
    done = look(watched, suites, **outcomes)
    assert done.round.state == state
    assert history.read(watched.history, watched.name).last == done.round


def test_a_fault_is_told_once_and_recovers_only_when_it_is_seen_good(watched: Watch, suites: Suites) -> None:
    """Between a failure and a good observation nothing is told, whatever is missing in between."""
    with webhook() as (url, posts):
        target = dataclasses.replace(watched.target, slack_webhook_url=url)
        watched = dataclasses.replace(watched, target=target)
        look(watched, suites)
        look(watched, suites, grave=Outcome.FAIL)
        look(watched, suites, grave=Outcome.FAIL)
        assert look(watched, suites, grave=Outcome.UNKNOWN).round.state == "doubtful"
        assert len(posts) == 1
        assert kinds(look(watched, suites)) == [("recovered", "grave")]
        look(watched, suites)
    texts = [p["blocks"][0]["text"]["text"] for p in posts]
    assert len(texts) == 2
    assert texts[0].startswith(":red_circle: *failing* (page) `sql/spot/grave`")
    assert texts[1].startswith(":large_green_circle: *recovered*")


def test_what_slack_did_not_take_is_told_with_the_next_round(watched: Watch, suites: Suites) -> None:
    """A webhook that failed loses nothing, and what was told is not told again."""
    with webhook(500) as (url, posts):
        target = dataclasses.replace(watched.target, slack_webhook_url=url)
        done = look(dataclasses.replace(watched, target=target), suites, grave=Outcome.FAIL)
        assert done.slack_error == "the webhook answered 500"
        assert len(posts) == 1
    with webhook() as (url, posts):
        target = dataclasses.replace(watched.target, slack_webhook_url=url)
        look(dataclasses.replace(watched, target=target), suites)
        look(dataclasses.replace(watched, target=target), suites)
    assert len(posts) == 1
    text = posts[0]["blocks"][0]["text"]["text"]
    assert [word in text for word in ("*failing*", "*recovered*")] == [True, True]


def test_a_watch_without_a_webhook_owes_nobody(watched: Watch, suites: Suites) -> None:
    """A webhook that is set later is not flooded with what is long over."""
    look(watched, suites, grave=Outcome.FAIL)
    look(watched, suites)
    assert history.read(watched.history, watched.name).untold == ()


def test_no_secret_reaches_the_history(watched: Watch, suites: Suites) -> None:
    """Neither the target's secrets nor its database URL, in any file beside it."""
    look(watched, suites, grave=Outcome.FAIL)
    files = [p for p in watched.history.parent.rglob("*") if p.is_file()]
    assert len(files) > 2
    assert not [p for p in files if SECRET.encode() in p.read_bytes()]


def test_a_second_watcher_looks_at_nothing_while_the_first_one_does(watched: Watch, suites: Suites) -> None:
    """None, and no line in the history."""
    with history.turn(watched.history) as mine:
        assert mine
        assert one_round(watched) is None
    assert suites.asked == []
    assert not watched.history.exists()


def test_a_history_that_was_cut_is_continued_and_said(watched: Watch, suites: Suites) -> None:
    """The state of the last whole round is gone on from."""
    look(watched, suites, grave=Outcome.FAIL)
    look(watched, suites, grave=Outcome.FAIL)
    watched.history.write_bytes(watched.history.read_bytes()[:-30])
    done = look(watched, suites)
    assert kinds(done) == [("recovered", "grave")]
    assert "cannot be read" in history.read(watched.history, watched.name).said


def test_a_watcher_that_was_down_says_so(watched: Watch, suites: Suites) -> None:
    """The first round after a gap tells of it; a failure before and after the gap is not one in a row."""
    look(watched, suites, grave=Outcome.FAIL)
    later = dataclasses.replace(watched, now=lambda: dt.datetime.now(dt.UTC) + dt.timedelta(minutes=30))
    done = look(later, suites, grave=Outcome.FAIL)
    assert kinds(done)[0] == ("watcher down", "watch")
    assert done.round.down_s == pytest.approx(1800, abs=5)
    assert done.round.incidents[0].harm == 1


def test_a_clock_that_went_back_is_said_and_the_watch_goes_on(watched: Watch, suites: Suites) -> None:
    """Rounds keep their order by their number."""
    look(watched, suites)
    back = dataclasses.replace(watched, now=lambda: dt.datetime.now(dt.UTC) - dt.timedelta(minutes=3))
    done = look(back, suites)
    assert "the clock went back" in done.round.clock
    assert done.round.number == 2
    assert done.round.state == "good"


def test_what_was_seen_failing_and_not_looked_at_since_is_not_good(watched: Watch, suites: Suites) -> None:
    """A check that is left out of a round does not turn green."""
    suites.outcomes = {"sql/spot/grave": Outcome.FAIL}
    one_round(watched)
    suites.outcomes = {}
    kept = [s for s in CATALOGUE if s is not GRAVE]
    elsewhere = dataclasses.replace(GRAVE, deep=True)  # no longer part of a round, still in the catalogue
    done = one_round(dataclasses.replace(watched, catalogue=(*kept, elsewhere)))
    assert done is not None
    assert done.round.state == "doubtful"
    assert "not looked at since" in done.round.reason


def test_the_companies_of_earlier_rounds_are_left_out_for_a_day(watched: Watch, suites: Suites) -> None:
    """What an earlier round left in the trail does not fire an alert of this one."""
    suites.born = ["11111111-1111-4111-8111-111111111111"]
    look(watched, suites)
    suites.born = ["22222222-2222-4222-8222-222222222222"]
    look(watched, suites)
    assert suites.left_out == ["11111111-1111-4111-8111-111111111111"]
    later = dataclasses.replace(watched, now=lambda: dt.datetime.now(dt.UTC) + dt.timedelta(hours=26))
    suites.born = []
    look(later, suites)
    assert suites.left_out == []
    assert list(watched.beside("companies").glob("*")) == []


def test_a_round_that_cannot_be_kept_is_an_error_after_people_were_told(
    watched: Watch, suites: Suites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk must not swallow a page."""

    def full(*_: Any) -> None:
        raise CannotWork("no space left; allowed: some. Make room")

    monkeypatch.setattr(history, "append", full)
    suites.outcomes = {"sql/spot/grave": Outcome.FAIL}
    with webhook() as (url, posts):
        target = dataclasses.replace(watched.target, slack_webhook_url=url)
        with pytest.raises(CannotWork, match="no space left"):
            one_round(dataclasses.replace(watched, target=target))
    assert len(posts) == 1


@pytest.mark.parametrize("interval_s", [60.0, 0.001])
def test_rounds_follow_each_other_at_their_interval(
    watched: Watch, suites: Suites, monkeypatch: pytest.MonkeyPatch, interval_s: float
) -> None:
    """A round that could not be made is said, and the next one comes all the same."""
    slept: list[float] = []
    said: list[str] = []
    seen: list[FinishedRound | None] = []
    tries = iter([CannotWork("once"), None, None])
    real = story.one_round

    def sometimes(watched: Watch, jump_s: float) -> FinishedRound | None:
        error = next(tries)
        if error is not None:
            raise error
        return real(watched, jump_s)

    monkeypatch.setattr(story, "one_round", sometimes)
    asked = dataclasses.replace(watched, warn=said.append, interval_s=interval_s)
    rounds(asked, seen.append, slept.append, most=3)
    assert [d.round.number for d in seen if d] == [1, 2]
    assert said == ["this round could not be made: once"]
    assert len(slept) == 2
    assert all(0 <= s <= 2 * interval_s for s in slept)  # a round that takes longer is followed at once


# --- the flag ----------------------------------------------------------------------------------------------------


@pytest.fixture
def flagged(watched: Watch, pg_server: PgServer) -> Iterator[tuple[Watch, str]]:
    """The watch over a migrated database, allowed to roll back, and the database's URL; the flag is on at 50 %."""
    name = pg_server.create_database(TEMPLATE)
    url = pg_server.url(name)
    put(url, True)
    target = dataclasses.replace(watched.target, database_url=url)
    yield dataclasses.replace(watched, target=target, rollback=True), url
    pg_server.drop_database(name)


def put(url: str, enabled: bool) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("delete from public.feature_flags where key = 'outbox.enabled'")
        connection.execute(
            "insert into public.feature_flags (key, enabled, rollout_percentage) values ('outbox.enabled', %s, 50)",
            (enabled,),
        )


def flag(url: str) -> bool:
    with psycopg.connect(url) as connection:
        row = connection.execute("select enabled from public.feature_flags where key = 'outbox.enabled'").fetchone()
    assert row is not None
    return bool(row[0])


def audited(url: str) -> list[dict[str, Any]]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "select metadata from public.audit_logs where action = 'flag_rolled_back' order by id"
        )
        return [r[0] for r in rows.fetchall()]


@pytest.mark.parametrize(
    ("seen", "on"),
    [
        ((Outcome.FAIL,), True),
        ((Outcome.FAIL, Outcome.FAIL), False),
        ((Outcome.UNKNOWN, Outcome.UNKNOWN, Outcome.UNKNOWN), True),
        ((Outcome.FAIL, Outcome.UNKNOWN, Outcome.FAIL), True),
        ((Outcome.FAIL, Outcome.PASS, Outcome.FAIL), True),
    ],
)
def test_the_flag_goes_off_only_for_harm_seen_in_two_rounds_in_a_row(
    flagged: tuple[Watch, str], suites: Suites, seen: tuple[Outcome, ...], on: bool, tmp_path: Path
) -> None:
    """By the path of a run: one audit row with the reason, and a line of the history; unknown never rolls back."""
    watched, url = flagged
    settings = dataclasses.replace(watched.policy_file.settings, state=tmp_path / "remembered")
    watched = dataclasses.replace(watched, policy_file=dataclasses.replace(watched.policy_file, settings=settings))
    dones = [look(watched, suites, grave=outcome) for outcome in seen]
    assert flag(url) is on
    assert len(audited(url)) == (not on)
    told = past_decisions.read(settings.state_of(watched.name))
    assert [(one.decision, one.release, one.target) for one in told] == [(Decision.ROLLBACK, "r1", "staging")] * (
        not on
    )
    if not on:
        assert dones[-1].round.action["result"] == "done"
        assert "seen failing in 2 rounds in a row" in audited(url)[0]["reason"]
        assert ("rolled back", "grave") in kinds(dones[-1])


def test_without_being_asked_the_flag_is_never_touched(flagged: tuple[Watch, str], suites: Suites) -> None:
    """A watch looks; that is all."""
    watched, url = flagged
    for _ in range(3):
        look(dataclasses.replace(watched, rollback=False), suites, grave=Outcome.FAIL)
    assert flag(url)


def test_a_flag_that_a_human_switched_off_stays_as_it_is(flagged: tuple[Watch, str], suites: Suites) -> None:
    """Nothing is written, and a recovery switches nothing on."""
    watched, url = flagged
    look(watched, suites, grave=Outcome.FAIL)
    put(url, False)
    done = look(watched, suites, grave=Outcome.FAIL)
    assert done.round.action["result"] == "nothing_to_do"
    look(watched, suites)
    assert (flag(url), audited(url)) == (False, [])


def test_a_human_who_switches_on_again_is_not_overruled(flagged: tuple[Watch, str], suites: Suites) -> None:
    """One rollback an incident; the next incident may be rolled back again."""
    watched, url = flagged
    for _ in range(2):
        look(watched, suites, grave=Outcome.FAIL)
    put(url, True)
    look(watched, suites, grave=Outcome.FAIL)
    look(watched, suites, grave=Outcome.FAIL)
    assert flag(url)
    look(watched, suites)
    for _ in range(2):
        look(watched, suites, grave=Outcome.FAIL)
    assert (flag(url), len(audited(url))) == (False, 2)


def test_a_mild_failure_never_rolls_back_and_patience_can_be_longer(flagged: tuple[Watch, str], suites: Suites) -> None:
    """Only what the policy lets roll back counts, and --confirm says how often."""
    watched, url = flagged
    for _ in range(3):
        look(watched, suites, mild=Outcome.FAIL)
    slow = dataclasses.replace(watched, patience=Patience(confirm=3))
    for _ in range(2):
        look(slow, suites, grave=Outcome.FAIL)
    assert flag(url)
    look(slow, suites, grave=Outcome.FAIL)
    assert not flag(url)


# --- what a round looks at ---------------------------------------------------------------------------------------

FULL = Target(
    TargetKind.PRODUCTION, "http://x", (SECRET,), COMPANY, "t.o.k", database_url=NOWHERE, slack_webhook_url="http://y"
)


@pytest.mark.parametrize(
    ("target", "wanted", "drills"),
    [
        (FULL, Drills.AUTO, Drills.CANARY),
        (dataclasses.replace(FULL, database_url=""), Drills.AUTO, Drills.SHORT),
        (dataclasses.replace(FULL, database_url="", test_company_id=""), Drills.AUTO, Drills.NONE),
        (dataclasses.replace(FULL, hmac_secrets=()), Drills.AUTO, Drills.NONE),
        (dataclasses.replace(FULL, admin_jwt=""), Drills.AUTO, Drills.NONE),
        (dataclasses.replace(FULL, base_url=""), Drills.AUTO, Drills.NONE),
        (dataclasses.replace(FULL, hmac_secrets=()), Drills.SHORT, Drills.SHORT),
        (FULL, Drills.NONE, Drills.NONE),
        (FULL, Drills.ALL, Drills.ALL),
    ],
)
def test_which_drills_a_round_makes(
    target: Target, wanted: Drills, drills: Drills, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself the canary's, where a proof has chosen them, or the short drill, where their variables are given; what
    is asked for is done, unknown if need be.
    """
    monkeypatch.setattr(looks, "canary", lambda: ("drill/surface/g",))
    assert drills_for(target, wanted) is drills
    monkeypatch.setattr(looks, "canary", lambda: ())
    assert drills_for(target, wanted) is (Drills.SHORT if drills is Drills.CANARY else drills)


def test_the_canary_is_read_from_the_last_proof(tmp_path: Path) -> None:
    """A proof that is absent, broken, or knows of no canary has chosen nothing."""
    proof = tmp_path / "proof.json"
    assert looks.canary(proof) == ()
    proof.write_text('{"canary": {"checks": ["drill/a", "drill/b"]}}')
    assert looks.canary(proof) == ("drill/a", "drill/b")
    for broken in ("{", "[]", "{}", '{"canary": 1}'):
        proof.write_text(broken)
        assert looks.canary(proof) == ()


EVERYTHING = (
    spec("preflight/variables"),
    spec("preflight/ready"),
    spec("sql/spot/a"),
    spec("sql/rls/b", where=Where.SELF_CLEANING),
    dataclasses.replace(spec("sql/spot/deep"), deep=True),
    spec("alert/c"),
    spec("drill/proof/d", where=Where.SELF_CLEANING),
    spec("drill/pause/e", where=Where.STAGING),
    spec("drill/kill/f", where=Where.REFERENCE),
    spec("drill/surface/g"),
    spec("load/h", where=Where.SELF_CLEANING),
)
ALWAYS = {"preflight/ready", "sql/spot/a", "alert/c"}


@pytest.mark.parametrize(
    ("drills", "sql", "since_s", "also", "not_due"),
    [
        (Drills.NONE, True, None, set(), ()),
        (Drills.SHORT, True, 1.0, {"drill/proof/d"}, ()),
        (Drills.SHORT, False, None, {"drill/proof/d"}, ()),
        (Drills.SHORT, False, 304.0, set(), ("drill/proof/d",)),
        (Drills.SHORT, False, 306.0, {"drill/proof/d"}, ()),
        (Drills.SHORT, False, -60.0, {"drill/proof/d"}, ()),
        (Drills.CANARY, True, 1.0, {"drill/surface/g"}, ()),
        (Drills.ALL, True, 1.0, {"drill/proof/d", "drill/surface/g", "sql/rls/b"}, ()),
        (Drills.ALL, False, 1.0, {"drill/surface/g", "sql/rls/b"}, ("drill/proof/d",)),
    ],
)
def test_what_a_round_looks_at(
    drills: Drills,
    sql: bool,
    since_s: float | None,
    also: set[str],
    not_due: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Never the load, nothing for staging; for TEST_COMPANY_ID the short drill keeps its five minutes."""
    monkeypatch.setattr(looks, "canary", lambda: ("drill/surface/g", "drill/pause/e", "drill/kill/f"))
    target = FULL if sql else dataclasses.replace(FULL, database_url="")
    made = plan(EVERYTHING, dataclasses.replace(target, kind=TargetKind.REFERENCE), drills, since_s)
    assert {s.id for s in made.checks} == ALWAYS | also
    assert made.not_due == not_due


# --- the whole of it ---------------------------------------------------------------------------------------------


def test_a_fault_in_the_database_between_two_rounds(watched: Watch, pg_server: PgServer) -> None:
    """With the real checks: a table loses its row security, is seen, is repaired, is seen again."""
    name = pg_server.create_database(TEMPLATE)
    url = pg_server.url(name)
    checks = {"sql/spot/rls-enabled", "sql/spot/replay-runs-unique"}
    shipped = json.loads(catalogue.FILE.read_text(encoding="utf-8"))
    specs = tuple(CheckSpec.from_json(s) for s in shipped if s["id"] in checks)
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    target = dataclasses.replace(watched.target, database_url=url)
    real = dataclasses.replace(watched, target=target, catalogue=specs, environ=environ, interval_s=1.0)
    started = time.monotonic()
    try:
        states = []
        for statement in (
            "select",
            "alter table public.agent_tasks disable row level security",
            "select",
            "alter table public.agent_tasks enable row level security",
        ):
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(statement.encode())
            done = one_round(real)
            assert done is not None
            states.append((done.round.state, kinds(done)))
    finally:
        pg_server.drop_database(name)
    assert states == [
        ("good", []),
        ("failing", [("failing", "rls-enabled")]),
        ("failing", []),
        ("good", [("recovered", "rls-enabled")]),
    ]
    assert time.monotonic() - started < 120
