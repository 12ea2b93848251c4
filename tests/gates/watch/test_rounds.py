"""The rounds of the watch: what is kept and told, and when the next one comes."""

import dataclasses
import datetime as dt
import os
from pathlib import Path
from typing import Any

import pytest

from gates.deployment.target import Target
from gates.errors import CannotWork
from gates.evidence import Outcome, TargetKind, Where
from gates.watch import history, story
from gates.watch import look as looks
from gates.watch.look import Drills, drills_for, plan
from gates.watch.story import FinishedRound, Watch, one_round, rounds
from tests.gates.reports.test_webhook import webhook
from tests.gates.watch.rounds import CATALOGUE, GRAVE, SECRET, Suites, kinds, look, spec

NOWHERE = f"postgresql://u:{SECRET}@127.0.0.1:9/x"

COMPANY = "00000000-0000-4000-8000-000000000004"


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
    """All passes are good, any harm is failing, everything else is doubtful."""
    done = look(watched, suites, **outcomes)
    assert done.round.state == state
    assert history.read(watched.history, watched.name).last == done.round


def test_a_fault_is_told_once_and_recovers_only_when_it_is_seen_good(watched: Watch, suites: Suites) -> None:
    """Between a failure and the next pass nothing more is told."""
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
    """A failed webhook loses nothing, and nothing is told twice."""
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
    """A webhook that is set later gets no old news."""
    look(watched, suites, grave=Outcome.FAIL)
    look(watched, suites)
    assert history.read(watched.history, watched.name).untold == ()


def test_no_secret_reaches_the_history(watched: Watch, suites: Suites) -> None:
    """No file has a secret of the target or its database URL."""
    look(watched, suites, grave=Outcome.FAIL)
    files = [p for p in watched.history.parent.rglob("*") if p.is_file()]
    assert len(files) > 2
    assert not [p for p in files if SECRET.encode() in p.read_bytes()]


def test_a_second_watcher_looks_at_nothing_while_the_first_one_does(watched: Watch, suites: Suites) -> None:
    """It returns None, and writes no line."""
    with history.turn(watched.history) as mine:
        assert mine
        assert one_round(watched) is None
    assert suites.asked == []
    assert not watched.history.exists()


def test_a_history_that_was_cut_is_continued_and_said(watched: Watch, suites: Suites) -> None:
    """The watch goes on from the last whole round."""
    look(watched, suites, grave=Outcome.FAIL)
    look(watched, suites, grave=Outcome.FAIL)
    watched.history.write_bytes(watched.history.read_bytes()[:-30])
    done = look(watched, suites)
    assert kinds(done) == [("recovered", "grave")]
    assert "cannot be read" in history.read(watched.history, watched.name).said


def test_a_watcher_that_was_down_says_so(watched: Watch, suites: Suites) -> None:
    """The first round after a gap says so, and failures before and after it are not in a row."""
    began = dt.datetime.now(dt.UTC)
    look(dataclasses.replace(watched, now=lambda: began), suites, grave=Outcome.FAIL)
    later = dataclasses.replace(watched, now=lambda: began + dt.timedelta(minutes=30))
    done = look(later, suites, grave=Outcome.FAIL)
    assert kinds(done)[0] == ("watcher down", "watch")
    assert done.round.down_s == 1800
    assert done.round.incidents[0].harm == 1


def test_a_clock_that_went_back_is_said_and_the_watch_goes_on(watched: Watch, suites: Suites) -> None:
    """Rounds are ordered by number, not by time."""
    look(watched, suites)
    back = dataclasses.replace(watched, now=lambda: dt.datetime.now(dt.UTC) - dt.timedelta(minutes=3))
    done = look(back, suites)
    assert "the clock went back" in done.round.clock
    assert done.round.number == 2
    assert done.round.state == "good"


def test_what_was_seen_failing_and_not_looked_at_since_is_not_good(watched: Watch, suites: Suites) -> None:
    """A failed check that a round leaves out stays failed."""
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
    """Audit rows of an earlier round's tenants fire no alert."""
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


def test_nothing_is_written_or_removed_through_a_link_beside_the_history(
    watched: Watch, suites: Suites, tmp_path: Path
) -> None:
    """A symbolic link in the state folder cannot make the watch change somebody's file."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name in ("companies.txt", "evidence.ndjson", "old.txt"):
        (theirs / name).write_text("precious", encoding="utf-8")
        os.utime(theirs / name, (1, 1))
    watched.history.parent.mkdir()
    for name in ("last", "companies"):
        watched.beside(name).symlink_to(theirs)
    suites.born = ["11111111-1111-4111-8111-111111111111"]
    look(watched, suites)
    assert {p.name: p.read_text() for p in theirs.iterdir()} == dict.fromkeys(
        ("companies.txt", "evidence.ndjson", "old.txt"), "precious"
    )
    look(watched, suites)
    assert suites.left_out == suites.born


def test_companies_that_cannot_be_read_are_an_error_of_the_watch(watched: Watch, suites: Suites) -> None:
    """Without the list, old drill tenants would count: nothing is looked at, and the file is named."""
    watched.beside("companies").mkdir(parents=True)
    (watched.beside("companies") / "1.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(CannotWork, match=r"no UTF-8.*1\.txt"):
        one_round(watched)
    assert suites.asked == []


def test_a_round_that_cannot_be_kept_is_an_error_after_people_were_told(
    watched: Watch, suites: Suites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People are told before the full disk is reported."""

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
    """A round that fails is reported, and the next one comes on time."""
    slept: list[float] = []
    said: list[str] = []
    seen: list[FinishedRound | None] = []
    tries = iter([CannotWork("once"), OSError("once"), None, None])
    real = story.one_round

    def sometimes(watched: Watch, jump_s: float) -> FinishedRound | None:
        error = next(tries)
        if error is not None:
            raise error
        return real(watched, jump_s)

    monkeypatch.setattr(story, "one_round", sometimes)
    asked = dataclasses.replace(watched, warn=said.append, interval_s=interval_s)
    rounds(asked, seen.append, slept.append, most=4)
    assert [d.round.number for d in seen if d] == [1, 2]
    assert said == ["this round could not be made: once"] * 2
    assert len(slept) == 3
    assert all(0 <= s <= 3 * interval_s for s in slept)  # a round that takes longer is followed at once


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
def test_drills_of_a_round(target: Target, wanted: Drills, drills: Drills, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the proof's canary, else the short drill if its variables are given; drills that are asked for run."""
    monkeypatch.setattr(looks, "canary", lambda: ("drill/surface/g",))
    assert drills_for(target, wanted) is drills
    monkeypatch.setattr(looks, "canary", lambda: ())
    assert drills_for(target, wanted) is (Drills.SHORT if drills is Drills.CANARY else drills)


def test_the_canary_is_read_from_the_last_proof(tmp_path: Path) -> None:
    """A proof that is missing, broken or without a canary selects no drill."""
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
    monkeypatch.setattr(looks, "canary", lambda: ("drill/surface/g", "drill/pause/e", "drill/kill/f", "load/h"))
    target = FULL if sql else dataclasses.replace(FULL, database_url="")
    made = plan(EVERYTHING, dataclasses.replace(target, kind=TargetKind.REFERENCE), drills, since_s)
    assert {s.id for s in made.checks} == ALWAYS | also
    assert made.not_due == not_due
