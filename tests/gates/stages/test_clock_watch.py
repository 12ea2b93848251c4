"""A clock that is set during a run is reported, in any direction and over slow answers; a steady one is not."""

import datetime as dt
import itertools
import re
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import psycopg
import pytest

from gates.decision.clock import SERVICE_ALONE, SKEW, STEPPED_S
from gates.decision.policy_file import parse
from gates.deployment.http.client import HttpDoor
from gates.deployment.requests import Answer, Request
from gates.deployment.sql.database import connect, value
from gates.deployment.target import Target
from gates.evidence import Evidence, Outcome, TargetKind
from gates.evidence_file import read_lines
from gates.proof.workbench.servers import Asked, Reply, serve
from gates.stages import clock
from gates.stages.clock import ClockWatch, Moved
from gates.stages.context import Context
from gates.stages.preflight import endpoints
from tests.waiting import until

STEPS: dict[str, tuple[list[float], float]] = {
    "back": ([0, 0, -600, -600], -600),
    "on": ([0, 120, 120], 120),
    "thirty seconds": ([0, 30], 30),
    "back and on again": ([0, -600, 0, 0], -600),
    "slewed": ([0, 0.1, 0.2, 0.3], 0),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_measured_and_slewing_is_none(name: str) -> None:
    """The largest step counts, even if it was undone before the end; gradual correction is no step."""
    offsets, expected = STEPS[name]
    moved = Moved()
    for number, offset in enumerate(offsets):
        moved.see(1e9 + 2.0 * number + offset, 2.0 * number - 0.01, 2.0 * number + 0.01)
    assert moved.step_s == pytest.approx(expected, abs=0.35)


def test_an_answer_that_came_late_is_no_step() -> None:
    """A difference that the answer's delay can explain is no step, even if all of it was on one way."""
    moved = Moved()
    moved.see(1e9, -0.01, 0.01)
    moved.see(1e9 + 30, 0, 40)
    moved.see(1e9 + 10, 10, 50)
    assert moved.step_s == 0


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        ([0, 0, 600, 600], 600),
        ([0, 0, -600, -600, 0], -600),
        ([0, -6, -12, -18, -24], 0),  # its answer is always the same
        ([0, 30, 0, 30, 0], 0),  # two instances take turns
        ([0, 0, 0, 600], 0),
    ],
)
def test_a_step_of_the_service_is_one_that_stays(offsets: list[float], expected: float) -> None:
    """Answers may come from a cache or another instance, so two looks in a row must agree."""
    moved = Moved(looks=2)
    for number, offset in enumerate(offsets):
        moved.see(1e9 + 6.0 * number + offset, 6.0 * number - 1.01, 6.0 * number + 0.01)
    assert moved.step_s == pytest.approx(expected, abs=1.1)


def watched(
    folder: Path, monkeypatch: pytest.MonkeyPatch, offsets: Iterator[float], ahead_s: float | None = None
) -> list[Evidence]:
    """What a watch writes of a database whose clock is so far from ours, look after look.

    ahead_s: how far the notes of the server are ahead of its clock.
    """
    looks: list[float] = []

    def shown(_connection: Any, statement: str) -> dt.datetime | float | None:
        if statement == clock.AHEAD_S:
            return ahead_s
        looks.append(next(offsets))
        return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=looks[-1])

    monkeypatch.setattr(clock, "value", shown)
    connection = SimpleNamespace(closed=False, close=lambda: None)
    monkeypatch.setattr(clock, "connect", lambda *_url, **_more: connection)
    settings = parse("version: 1\n", "gate.yaml", folder, dt.date(2026, 1, 1)).settings
    target = Target(TargetKind.STAGING, "http://unset.invalid", database_url="postgresql://unset", release="r1")
    context = Context(target, settings, folder, "run")
    with ClockWatch(context, every_s=0.01):
        until(lambda: len(looks) > 3)
    return read_lines(context.evidence) if context.evidence.exists() else []


def test_a_clock_that_was_set_is_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line is unknown, and says whose clock stepped and by how much."""
    [line] = watched(tmp_path, monkeypatch, (0.0 if n < 2 else -600.0 for n in range(10_000)))
    assert (line.check, line.outcome, line.unit) == (SKEW, Outcome.UNKNOWN, "s")
    assert line.details[STEPPED_S] == pytest.approx(-600, abs=0.5)
    assert line.message.startswith("the database's clock stepped by -600.0 s during the run")


def test_a_steady_clock_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A steady clock is not reported, even if it is wrong: another check judges that."""
    assert not watched(tmp_path, monkeypatch, (90.0 for _ in range(10_000)))


def test_a_clock_that_was_set_back_before_the_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics from the near future show that the clock was set back shortly before the run."""
    [line] = watched(tmp_path, monkeypatch, (0.0 for _ in range(10_000)), 540.0)
    assert line.message.startswith("the database's clock stepped by -540.0 s a short time before the run")
    assert not watched(tmp_path / "steady", monkeypatch, (0.0 for _ in range(10_000)), 0.5)
    assert not watched(tmp_path / "long-ago", monkeypatch, (0.0 for _ in range(10_000)), 3e8)


def test_a_database_that_is_gone_is_asked_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that refuses connections is asked at the usual interval, not at once again."""
    asked: list[float] = []

    def refused(*_url: object, **_more: object) -> None:
        asked.append(time.monotonic())
        raise psycopg.OperationalError("connection refused")

    monkeypatch.setattr(clock, "connect", refused)
    settings = parse("version: 1\n", "gate.yaml", tmp_path, dt.date(2026, 1, 1)).settings
    target = Target(TargetKind.STAGING, "http://unset.invalid", database_url="postgresql://unset")
    with ClockWatch(Context(target, settings, tmp_path, "run"), every_s=0.2):
        until(lambda: len(asked) > 2)
    assert asked[2] - asked[0] >= 0.4


@pytest.mark.parametrize(
    ("step_s", "cached", "told"), [(600.0, False, True), (3.0, False, False), (600.0, True, False)]
)
def test_the_clock_of_the_service_is_its_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_s: float, *, cached: bool, told: bool
) -> None:
    """The Date header shows the service's clock, to a few seconds; cached answers do not count."""
    asked: list[Request] = []

    class Door:
        def __init__(self, *_base: object, **_more: object) -> None: ...
        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_error: object) -> None: ...
        def send(self, request: Request) -> Answer:
            asked.append(request)
            shown = time.time() + (step_s if len(asked) > 1 else 0.0)
            headers = (("date", formatdate(shown, usegmt=True)), *([("age", "5")] if cached else []))
            return Answer(200, headers, b"", 1.0)

    monkeypatch.setattr(clock, "HttpDoor", Door)
    lines = watched(tmp_path, monkeypatch, (0.0 for _ in range(10_000)))
    assert [line.details.get(SERVICE_ALONE) for line in lines] == [True] * told


def test_a_server_says_when_its_notes_are_of(migrated_url: str) -> None:
    """The statistics of a database in use are not ahead of its own clock."""
    with connect(migrated_url, read_only=True) as connection:
        assert float(str(value(connection, clock.AHEAD_S))) < 1


@pytest.mark.parametrize(("ahead_s", "is_cached", "told"), [(400, False, True), (20, False, False), (400, True, False)])
def test_instances_whose_clocks_are_apart_are_told(ahead_s: int, is_cached: bool, told: bool, tmp_path: Path) -> None:
    """An instance whose clock is wrong by minutes refuses good credentials; the date of a cached answer is no clock."""
    turns = itertools.cycle((0, ahead_s))

    def answer(_asked: Asked) -> Reply:
        shown = formatdate(time.time() + next(turns), usegmt=True)
        return Reply(200, (("Date", shown), *([("Age", "5")] if is_cached else [])), b'{"release": "r1"}')

    with serve(answer) as url, HttpDoor(url) as door:
        seen = endpoints.clocks(endpoints.versions_of(door))
    assert (seen is not None) is told
    assert seen is None or re.match(r"the clocks of the service's instances are (399|40\d) s apart", seen.message)
