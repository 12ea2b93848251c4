"""A target that dies in the middle of a stage ends the stage; later failures are not held against it."""

import datetime as dt
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gates.decision import unreachable
from gates.decision.decide import decide
from gates.decision.policy_file import parse
from gates.decision.rules import Policy
from gates.deployment import control
from gates.deployment.target import Target
from gates.evidence import Evidence, JsonValue, Outcome, TargetKind
from gates.evidence_file import read_lines
from gates.proof.workbench.servers import HANG, Asked, Behaviour, Reply, raw, serve
from gates.stages import load_process, suite, watchdog
from gates.stages.context import Context
from gates.stages.drill import drill
from gates.stages.load_options import OF_A_RUN
from gates.stages.preflight.endpoints import REACHABLE
from gates.stages.suite import SuiteRun, run
from gates.stages.watchdog import Watchdog
from gates.verdict import Decision
from tests.gates.small_run import spec
from tests.waiting import until

AT = dt.datetime(2026, 1, 1, 12, 0, tzinfo=dt.UTC)
FINE = Reply(200, (("Content-Type", "application/json"),), b"{}")
MOST_S = 15.0


CATALOGUE = (
    *(REACHABLE, spec("drill/small/first", "first"), spec("drill/small/main"), spec("drill/small/last", "last")),
    spec("load/small"),
)
SLEEPS = """
import time

from gates.checks.recorder import check


@check("drill/small/{phase}", phase="{phase}")
def test_it(seen):
    \"\"\"A claim.

    A cost.
    \"\"\"
    seen.control("it is there")
    seen.count()
    time.sleep({seconds})
"""


@dataclass
class Service:
    """A target whose behaviour can be changed at any time."""

    url: str = ""
    behaviour: Callable[[Asked], Reply] = lambda _asked: FINE
    asked: list[str] = field(default_factory=list)

    def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked.path)
        return self.behaviour(asked)

    @property
    def target(self) -> Target:
        return Target(TargetKind.STAGING, self.url, release="r1")

    def context(self, folder: Path) -> Context:
        settings = parse("version: 1\n", "gate.yaml", folder, dt.date(2026, 1, 1)).settings
        return Context(self.target, settings, folder / "out", "run", CATALOGUE)


def gone(_asked: Asked) -> Reply:
    return raw(reset=True)


def frozen(_asked: Asked) -> Reply:
    return HANG


DEATHS: dict[str, Behaviour] = {
    "gone": gone,
    "frozen": frozen,
    "only_healthz": lambda asked: FINE if asked.path.endswith("/healthz") else HANG,
    "proxied": lambda _asked: Reply(502),
}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A healthy target, and a watchdog with short limits."""
    for name, seconds in (("PATIENCE_S", 1.0), ("EVERY_S", 0.1), ("LOOK_S", 0.5)):
        monkeypatch.setattr(watchdog, name, seconds)
    monkeypatch.setattr(watchdog, "MOST_STANDSTILL_S", 60.0)  # of this test, whose machine may be full
    found = Service()
    with serve(found.answer) as url:
        found.url = url
        yield found


@pytest.mark.parametrize("death", list(DEATHS))
def test_a_service_that_dies_is_barked_at(death: str, service: Service) -> None:
    """The watchdog reports every kind of death, with its time and the stage."""
    with Watchdog(service.target, "drill") as dog:
        until(lambda: len(service.asked) > 4, MOST_S)
        assert not dog.fired
        service.behaviour = DEATHS[death]
        until(lambda: dog.fired, MOST_S)
    (one,) = dog.shut
    assert (one.check, one.outcome, one.details["unreachable"]) == (REACHABLE.id, Outcome.UNKNOWN, True)
    assert one.message.startswith("the target stopped answering at ")
    assert " s into drill: " in one.message
    assert watchdog.AGAIN not in one.message


def test_a_service_that_answers_again_when_the_stage_is_over_is_told_so(service: Service) -> None:
    """The message says that it did not die: it may be too small for the stage's load."""
    with Watchdog(service.target, "the load") as dog:
        service.behaviour = frozen
        until(lambda: dog.fired, MOST_S)
        service.behaviour = lambda _asked: FINE
    (one,) = dog.shut
    assert one.details["unreachable"] is True
    assert one.message.endswith(watchdog.AGAIN)


def test_a_restart_is_no_death(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that answers again within the patience is not reported; a stage that ends meanwhile waits."""
    monkeypatch.setattr(watchdog, "PATIENCE_S", 600.0)
    with Watchdog(service.target, "drill") as dog:
        service.behaviour = gone
        until(lambda: len(service.asked) > 6, MOST_S)
        service.behaviour = lambda _asked: FINE
    assert dog.shut == []


def test_a_stage_that_ends_while_the_target_is_dead_says_so(service: Service) -> None:
    """The death is reported even if the drills end before the patience does."""
    with Watchdog(service.target, "drill") as dog:
        service.behaviour = gone
        seen = len(service.asked)
        until(lambda: len(service.asked) > seen + 2, MOST_S)
    assert [e.check for e in dog.shut] == [REACHABLE.id]


def test_what_a_drill_stops_on_purpose_does_not_count(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a drill controls the stack's processes, the watchdog does not fire; afterwards it does."""
    monkeypatch.setattr(control.Control, "mend", lambda _self: None)
    place = str(tmp_path / "control.sock")
    target = Target(TargetKind.REFERENCE, service.url, control=place)
    with Watchdog(target, "drill") as dog:
        with control.Control(place):
            assert control.is_disrupted(place)
            service.behaviour = gone
            seen = len(service.asked)
            until(lambda: len(service.asked) > seen + 20, MOST_S)
            assert not dog.fired
        assert not control.is_disrupted(place)
        until(lambda: dog.fired, MOST_S)


def test_a_gate_that_stood_still_blames_nobody(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks that were late because the gate itself stood still do not count."""
    monkeypatch.setattr(watchdog, "MOST_STANDSTILL_S", -1.0)
    with Watchdog(service.target, "drill") as dog:
        service.behaviour = gone
        seen = len(service.asked)
        until(lambda: len(service.asked) > seen + 20, MOST_S)
        assert not dog.fired


def test_a_gate_without_a_thread_to_look_blames_nobody(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look for which no thread can be started says nothing about the target."""
    looks = list[float]()

    def refused(look: object, _limit_s: float) -> None:
        looks.append(0.0)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(watchdog, "within", refused)
    with Watchdog(service.target, "drill") as dog:
        until(lambda: len(looks) > 20, MOST_S)
        assert not dog.fired
        assert not dog.shut


def test_a_database_that_dies_is_barked_at(service: Service) -> None:
    """The same for SQL; if the service is dead as well, the database is blocked by it."""
    target = Target(TargetKind.STAGING, service.url, database_url="postgresql://gate:planted-pw@127.0.0.1:9/x")
    service.behaviour = gone
    with Watchdog(target, "data before", http=False) as dog:
        until(lambda: dog.fired, MOST_S)
    assert [(e.check, e.blocked_by) for e in dog.shut] == [("preflight/database", "")]
    with Watchdog(target, "drill") as dog:
        until(lambda: len(dog.shut) == 2, MOST_S)
    assert [e.blocked_by for e in dog.shut] == ["", REACHABLE.id]
    assert "planted-pw" not in str(dog.shut)


# --- the stages --------------------------------------------------------------------------------------------------


@pytest.fixture
def suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three drills, of which the second would take two minutes."""
    folder = tmp_path / "drills"
    folder.mkdir()
    options = [f"    parser.addoption('--{name}')\n" for name in ("companies", "trip-ms", "at-once", "beside", "lease")]
    (folder / "conftest.py").write_text(f"def pytest_addoption(parser):\n{''.join(options)}", encoding="utf-8")
    for number, (phase, seconds) in enumerate((("first", 0), ("main", 120), ("last", 0))):
        (folder / f"test_{number}_{phase}.py").write_text(SLEEPS.format(phase=phase, seconds=seconds), encoding="utf-8")
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[3]))
    (tmp_path / "out").mkdir()
    return tmp_path


def test_a_death_in_a_drill_ends_it_and_all_that_follow(service: Service, suites: Path) -> None:
    """Earlier evidence stands; the drill is cut, later ones do not begin, and all are blocked by the death."""
    context = service.context(suites)

    def dies(asked: Asked) -> Reply:
        begun = any(e.check == "drill/small/first" for e in read_lines(context.evidence))
        return gone(asked) if begun else FINE

    service.behaviour = dies
    started = time.monotonic()
    reports = drill(context)
    assert time.monotonic() - started < 60.0
    lines = {e.check: e for e in read_lines(context.evidence)}
    assert lines["drill/small/first"].outcome is Outcome.PASS
    for check in ("drill/small/main", "drill/small/last"):
        assert (lines[check].outcome, lines[check].blocked_by) == (Outcome.UNKNOWN, REACHABLE.id)
    assert ["the target stopped answering at" in r.error for r in reports] == [True]
    verdict = decide(list(lines.values()), policy(), dt.datetime.now(dt.UTC))
    assert verdict.decision is Decision.HOLD
    assert verdict.reason.startswith(f"{REACHABLE.id} is unknown: the target stopped answering at ")


def test_the_load_ends_when_its_target_dies(service: Service, tmp_path: Path) -> None:
    """The load is cut, and its thresholds are not judged."""
    service.behaviour = gone
    started = time.monotonic()
    (found,) = load_process.load(service.target, OF_A_RUN, tmp_path)
    assert time.monotonic() - started < 40.0
    assert found.check == REACHABLE.id
    assert "s into the load: " in found.message


def test_a_suite_of_a_dead_target_does_not_begin(service: Service, suites: Path) -> None:
    """A death that the run knows of blocks the suite at once; checks of the database go on."""
    context = service.context(suites)
    context.write([shut_at(AT)])
    report = run(SuiteRun("drill", "drills", [spec("drill/small/main")], 600.0), context)
    assert report.seconds < MOST_S
    assert watchdog.known_shut(context.evidence, http=False) == []


# --- the verdict -------------------------------------------------------------------------------------------------


def policy() -> Policy:
    file = parse("version: 1\n", "gate.yaml", Path(), dt.date(2026, 1, 1))
    return file.policy(CATALOGUE, TargetKind.STAGING, "r1", deep=False)


def shut_at(at: dt.datetime, until_then: JsonValue = "") -> Evidence:
    """A service that last answered at this time."""
    details: dict[str, JsonValue] = {"unreachable": True, unreachable.ANSWERED_UNTIL: until_then or at.isoformat()}
    said = "the target stopped answering at 12:00:10, 10 s into drill: refused"
    return Evidence(REACHABLE.id, Outcome.UNKNOWN, said, started_at=at.isoformat(), release="r1", details=details)


def failure(check: str, ended: dt.datetime) -> Evidence:
    began = ended - dt.timedelta(seconds=1)
    return Evidence(
        check, Outcome.FAIL, "it failed", samples=1, started_at=began.isoformat(), duration_ms=1000.0, release="r1"
    )


def test_harm_that_was_seen_before_the_death_stands() -> None:
    """A failure before the death still rolls back."""
    verdict = decide([failure("drill/small/main", AT), shut_at(AT + dt.timedelta(seconds=5))], policy(), AT)
    assert verdict.decision is Decision.ROLLBACK
    assert verdict.reason == "drill/small/main failed: it failed"


@pytest.mark.parametrize("check", ["drill/small/main", "load/small"])
def test_a_failure_after_the_death_is_unknown(check: str) -> None:
    """A failure after the death is blocked by it, and the run holds for that one cause."""
    verdict = decide([failure(check, AT + dt.timedelta(seconds=9)), shut_at(AT)], policy(), AT)
    assert verdict.decision is Decision.HOLD
    assert verdict.counts.failed == 0
    assert verdict.reason.startswith(f"{REACHABLE.id} is unknown: the target stopped answering at 12:00:10")
    assert next(f for f in verdict.findings if f.check == check).blocked_by == REACHABLE.id


def test_what_is_seen_in_the_database_stands_when_the_service_dies() -> None:
    """A dead service does not excuse bad rows."""
    lines = unreachable.excused([failure("sql/small", AT + dt.timedelta(seconds=9)), shut_at(AT)])
    assert lines[0].outcome is Outcome.FAIL


@pytest.mark.parametrize("until_then", ["yesterday", "2026-01-01T12:00:00", 7, ["x"]])
def test_a_death_without_a_time_excuses_nothing(until_then: JsonValue) -> None:
    """Without a valid time of the last answer, no failure is excused."""
    shut = shut_at(AT, until_then)
    lines = unreachable.excused([failure("drill/small/main", AT + dt.timedelta(seconds=9)), shut])
    assert lines[0].outcome is Outcome.FAIL
