"""Open incidents, notices, due rollbacks and missed rounds: tables and properties."""

import dataclasses
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gates.evidence import Outcome
from gates.text.quantity import span
from gates.watch.incidents import Patience, acted, fold, harmful, health_of
from gates.watch.rounds import Change, Incident, Reading, Round

START = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
CHECK = "sql/spot/rls-enabled"
GOOD = Reading(CHECK, Outcome.PASS)
PAGE = Reading(CHECK, Outcome.FAIL, "rollback", message="seen bad")
WARN = Reading(CHECK, Outcome.FAIL, "hold", message="seen doubtful")
NOTE = Reading(CHECK, Outcome.FAIL, "note", message="noted")
BLIND = Reading(CHECK, Outcome.UNKNOWN, "hold", message="no connection")
LACKING = dataclasses.replace(BLIND, lacking=True, message="3 samples, at least 20 are needed")
BLOCKED = dataclasses.replace(BLIND, blocked_by="preflight/database")
SPARED = Reading(CHECK, Outcome.UNKNOWN, "note")
SLOW = dataclasses.replace(PAGE, for_s=600.0)


def watched(
    *readings: Reading | None, minutes: float = 5.0, patience: Patience | None = None
) -> tuple[tuple[Incident, ...], list[list[str]], list[Change]]:
    """Fold one reading of a check per round: what is open at the end, the changes of each round, and all notices."""
    incidents: tuple[Incident, ...] = ()
    earlier: dict[str, Reading] = {}
    kinds: list[list[str]] = []
    told: list[Change] = []
    for i, reading in enumerate(readings):
        now = {CHECK: reading} if reading is not None else {}
        folded = fold(incidents, earlier, now, START + dt.timedelta(minutes=i * minutes), patience or Patience())
        incidents, earlier = folded.incidents, now
        kinds.append([c.kind for c in folded.changes])
        told += [c for c in folded.changes if c.told]
    return incidents, kinds, told


@pytest.mark.parametrize(
    ("readings", "kinds", "still_open"),
    [
        ((GOOD, GOOD), [[], []], False),
        ((GOOD, PAGE), [[], ["failing"]], True),
        ((PAGE, PAGE, PAGE), [["failing"], [], []], True),
        ((PAGE, GOOD), [["failing"], ["recovered"]], False),
        ((PAGE, BLIND), [["failing"], []], True),
        ((PAGE, BLIND, BLIND, GOOD), [["failing"], [], [], ["recovered"]], False),
        ((PAGE, None, None), [["failing"], [], []], True),
        ((PAGE, LACKING, BLOCKED), [["failing"], [], []], True),
        ((WARN, PAGE, WARN), [["failing"], ["worse"], []], True),
        ((NOTE, NOTE), [["failing"], []], True),
        ((SLOW, SLOW, SLOW), [["pending"], [], ["failing"]], True),
        ((SLOW, BLIND, SLOW), [["pending"], [], ["failing"]], True),
        ((SLOW, GOOD, SLOW), [["pending"], [], ["pending"]], True),
        ((GOOD, BLIND), [[], ["newly unknown"]], True),
        ((GOOD, BLIND, BLIND, BLIND), [[], ["newly unknown"], ["blind"], []], True),
        ((BLIND, BLIND, GOOD), [[], ["blind"], ["seen again"]], False),
        ((BLIND, GOOD, BLIND), [[], [], ["newly unknown"]], True),
        ((BLIND, BLIND, PAGE, GOOD), [[], ["blind"], ["failing"], ["recovered"]], False),
        ((LACKING, LACKING, LACKING), [[], [], []], False),
        ((BLOCKED, BLOCKED, BLOCKED), [[], [], []], False),
        ((SPARED, SPARED, SPARED), [[], [], []], False),
    ],
)
def test_what_changes_and_what_stays_open(
    readings: tuple[Reading | None, ...], kinds: list[list[str]], still_open: bool
) -> None:
    """Each change is told once; only a pass closes an incident; too few samples are not told."""
    incidents, seen, _ = watched(*readings)
    assert seen == kinds
    assert bool(incidents) == still_open


def test_what_is_only_noted_is_told_to_nobody() -> None:
    """A finding that is only noted is in the report, not in the channel."""
    assert watched(NOTE, NOTE, GOOD)[2] == []


def test_what_lasts_is_told_again_after_the_reminder_and_not_before() -> None:
    """The reminder also comes while the check cannot be seen, and then says so."""
    patience = Patience(remind_s=900.0)
    _, kinds, told = watched(PAGE, PAGE, PAGE, BLIND, PAGE, PAGE, BLIND, patience=patience)
    assert kinds == [["failing"], [], [], ["still failing"], [], [], ["still failing"]]
    assert "not seen since" in told[1].message


@pytest.mark.parametrize(
    ("readings", "due"),
    [
        ((PAGE,), False),
        ((PAGE, PAGE), True),
        ((PAGE, BLIND, PAGE), False),
        ((PAGE, GOOD, PAGE), False),
        ((PAGE, WARN, PAGE), False),
        ((PAGE, PAGE, BLIND), False),
        ((BLIND, BLIND, BLIND), False),
        ((WARN, WARN, WARN), False),
        ((PAGE, None, PAGE), True),
        ((PAGE, PAGE, None), False),
        ((SLOW, SLOW), False),
        ((SLOW, SLOW, SLOW), True),
    ],
)
def test_a_rollback_is_due_only_for_harm_seen_in_a_row(readings: tuple[Reading | None, ...], due: bool) -> None:
    """The last two rounds saw it grave. An unknown restarts the count, a check left out does not; pending is none."""
    incidents, _, _ = watched(*readings)
    last = {CHECK: readings[-1]} if readings[-1] is not None else {}
    assert bool(harmful(incidents, last, 2)) == due


@pytest.mark.parametrize("check", ["preflight/release", "sql/manifest/columns"])
def test_what_only_differs_from_what_was_written_down_is_never_rolled_back(check: str) -> None:
    """A watch set up for another release does not roll back a healthy one."""
    reading = dataclasses.replace(PAGE, check=check)
    incident = Incident(check, "failing", "page", START.isoformat(), START.isoformat(), 9, 9, True)
    assert harmful([incident], {check: reading}, 2) == []


@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.UNKNOWN])
def test_a_gate_that_does_not_work_itself_rolls_nothing_back(outcome: Outcome) -> None:
    """If its own known checks fail, its other findings do not count."""
    incidents, _, _ = watched(PAGE, PAGE)
    itself = Reading("preflight/pipeline", outcome, "hold")
    assert harmful(incidents, {CHECK: PAGE, itself.check: itself}, 2) == []
    assert harmful(incidents, {CHECK: PAGE, itself.check: Reading(itself.check, Outcome.PASS)}, 2)


def test_one_rollback_an_incident() -> None:
    """A person may switch the flag on again during an incident; a new incident may be rolled back."""
    incidents, _, _ = watched(PAGE, PAGE)
    incidents = acted(incidents, {CHECK})
    later = START + dt.timedelta(minutes=20)
    again = fold(incidents, {}, {CHECK: PAGE}, later, Patience()).incidents
    assert again[0].harm == 3
    assert harmful(again, {CHECK: PAGE}, 2) == []
    good = fold(again, {}, {CHECK: GOOD}, later, Patience()).incidents
    first = fold(good, {}, {CHECK: PAGE}, later, Patience()).incidents
    second = fold(first, {}, {CHECK: PAGE}, later, Patience()).incidents
    assert harmful(second, {CHECK: PAGE}, 2)


def test_rounds_that_are_missing_in_between_start_the_count_anew() -> None:
    """Harm before and after a gap was not seen in a row."""
    incidents, _, _ = watched(PAGE)
    after = fold(incidents, {}, {CHECK: PAGE}, START + dt.timedelta(hours=5), Patience(), in_a_row=False)
    assert after.incidents[0].harm == 1
    assert after.incidents[0].firing


def test_a_clock_that_goes_back_neither_hides_nor_hurries_an_alert() -> None:
    """If an alert's start is in the future, `for` counts from now."""
    incidents, _, _ = watched(SLOW)
    back = START - dt.timedelta(hours=3)
    first = fold(incidents, {}, {CHECK: SLOW}, back, Patience())
    assert [i.firing for i in first.incidents] == [False]
    second = fold(first.incidents, {}, {CHECK: SLOW}, back + dt.timedelta(minutes=10), Patience())
    assert [c.kind for c in second.changes] == ["failing"]


def test_an_incident_of_a_check_that_is_gone_is_closed_aloud() -> None:
    """The notice says that the check is gone, not that it passed."""
    incidents, _, _ = watched(PAGE)
    gone = fold(incidents, {}, {}, START, Patience(), known=["sql/spot/other"])
    assert [c.kind for c in gone.changes] == ["no longer checked"]
    assert fold(incidents, {}, {}, START, Patience(), known=[CHECK]).incidents == incidents


READINGS = st.lists(st.sampled_from([GOOD, PAGE, WARN, BLIND, LACKING, BLOCKED, SLOW, NOTE, None]), max_size=12)


@given(READINGS)
def test_nothing_recovers_without_a_good_observation(readings: list[Reading | None]) -> None:
    """A failure stays open until a pass, and a recovery is told only in a round with a pass."""
    incidents, kinds, _ = watched(*readings)
    for reading, changes in zip(readings, kinds, strict=True):
        assert not ({"recovered", "seen again"} & set(changes)) or reading is GOOD
    since_good = readings[max((i for i, r in enumerate(readings) if r is GOOD), default=-1) + 1 :]
    failed = any(r is not None and r.outcome is Outcome.FAIL for r in since_good)
    assert failed == any(i.kind == "failing" for i in incidents)


@given(READINGS)
def test_unknown_alone_never_makes_a_rollback_due(readings: list[Reading | None]) -> None:
    """A round that sees no failure of the check makes no rollback due."""
    for end in range(1, len(readings) + 1):
        last = readings[end - 1]
        incidents, _, _ = watched(*readings[:end])
        if last is None or not last.harmful:
            assert harmful(incidents, {CHECK: last} if last else {}, 2) == []


# --- the watcher itself ------------------------------------------------------------------------------------------


def made(minutes: float, *, number: int = 1, saw: bool = True) -> Round:
    at = (START + dt.timedelta(minutes=minutes)).isoformat()
    readings = {CHECK: GOOD if saw else BLIND}
    return Round(number, at, at, "t", "good", interval_s=300.0, readings=readings)


@pytest.mark.parametrize(
    ("last_min", "good_min", "now_min", "down", "blind", "said"),
    [
        (0, 0, 5, False, False, ""),
        (0, 0, 7.4, False, False, ""),
        (0, 0, 7.6, True, False, "about 1 missed"),
        (0, 0, 60, True, False, "about 11 missed"),
        (55, 0, 60, False, True, "has seen nothing of the target since"),
        (30, 0, 60, True, True, "was down"),
        (5, 5, 0, False, False, "the clock went back"),
    ],
)
def test_dead_mans_switch(last_min: float, good_min: float, now_min: float, down: bool, blind: bool, said: str) -> None:
    """The watcher counts as down after one and a half intervals; a living one that sees nothing is told apart."""
    last = made(last_min, number=2 if last_min != good_min else 1, saw=last_min == good_min)
    seen = health_of(last, made(good_min), START + dt.timedelta(minutes=now_min))
    assert (bool(seen.down_s), bool(seen.blind_s)) == (down, blind)
    assert said in seen.said
    assert bool(seen.said) == bool(said)


def test_a_first_round_has_nothing_to_miss() -> None:
    """Without a history no watcher was down."""
    assert health_of(None, None, START).said == ""


def test_a_clock_that_jumped_in_between_is_said() -> None:
    """The wall clock is compared with a monotonic one."""
    assert "jumped by +3600 s" in health_of(made(0), made(0), START + dt.timedelta(minutes=5), 3600.0).said


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (119, "119 s"), (300, "5 min"), (9000, "2.5 h"), (259200, "3 d")]
)
def test_a_length_of_time_is_said_as_people_say_it(seconds: float, text: str) -> None:
    """At most three digits and a fitting unit."""
    assert span(seconds) == text
