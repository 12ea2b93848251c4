"""The order of a campaign: clean run, fault, clean run; what is shared, what is repeated, what is reported."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gates.evidence import CheckSpec, Severity, TargetKind, Where
from gates.proof.fault import Kind, ListedFault
from gates.proof.judgement import Cell, GateRun, Status
from gates.proof.matrix.campaign import Campaign
from gates.proof.workbench import programs
from gates.proof.workbench.bench import ProofBench
from gates.stack.errors import StackError
from gates.verdict import Counts, Decision, Effect, Finding, Verdict

NOOP = ListedFault("noop/nothing", "Nothing.", Kind.NONE, Decision.PROMOTE)
CATALOGUE = tuple(CheckSpec(c, "", "", Severity.PAGE, Where.READ_ONLY) for c in ("drill/a", "sql/b"))


def fault(name: str, check: str = "drill/a", **more: Any) -> ListedFault:
    more = {"kind": Kind.SQL, "sql": "select 1", "decision": Decision.ROLLBACK, **more}
    return ListedFault(id=name, breaks="x", checks=(check,), names=("it",), **more)


class FakeBench(ProofBench):
    """A deployment that logs what is done to it."""

    def __init__(self, log: list[str], answers: Mapping[str, Any]) -> None:
        self.log, self.answers, self.on, self.environ = log, answers, "", {}

    def variables(self, kind: TargetKind | None = None) -> dict[str, str]:
        return {"ON": self.on, "KIND": str(kind)}

    def witness(self, fault: ListedFault) -> bool | str:
        self.log.append(f"witness {fault.id}")
        answer = self.answers.get(f"witness {fault.id}", self.on == fault.id)
        return answer if isinstance(answer, str) else bool(answer)

    def put_in(self, fault: ListedFault) -> None:
        self.log.append(f"in {fault.id}")
        if trouble := self.answers.get(f"in {fault.id}"):
            raise trouble
        self.on = "" if fault.is_noop else fault.id

    def take_out(self, fault: ListedFault) -> None:
        self.log.append(f"out {fault.id}")
        self.on = ""


class World:
    """Deployments, and a gate that catches every fault that is in; `answers` overrides single steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.log: list[str] = []
        self.answers: dict[str, Any] = {}
        self.cleans: list[GateRun] = []
        self.out, self.monkeypatch = tmp_path, monkeypatch
        monkeypatch.setattr(programs, "gate_run", lambda env, _out, *_words: self.gate("run", env))

    @contextmanager
    def open(self, kind: TargetKind, **_options: Any) -> Iterator[ProofBench]:
        assert kind is TargetKind.STAGING
        self.log.append("up")
        yield FakeBench(self.log, self.answers)
        self.log.append("down")

    def gate(self, how: str, environ: Mapping[str, str]) -> GateRun:
        on = environ["ON"]
        self.log.append(f"gate {how} {on or 'clean'}")
        if not on and self.cleans:
            return self.cleans.pop(0)
        if not on or self.answers.get(f"gate {on}") == "promote":
            return GateRun(Verdict(Decision.PROMOTE, "fine"))
        return GateRun(Verdict(Decision.ROLLBACK, "bad", findings=(found("it is wrong"),)))

    def run(self, *faults: ListedFault, every: int = 1) -> list[Cell]:
        return Campaign(self.open, CATALOGUE, self.out, every=every).run(faults)


def found(message: str) -> Finding:
    return Finding("drill/a", "fail", "page", Effect.ROLLBACK, message)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    return World(monkeypatch, tmp_path)


def test_each_fault_stands_between_two_clean_runs_that_its_neighbours_share(world: World) -> None:
    """Each fault has a deployment of its own; the next one's clean run is also the clean run after it."""
    cells = world.run(NOOP, fault("a/1"))
    assert [c.status for c in cells] == [Status.SURVIVED, Status.KILLED]
    steps = ("witness {0}", "in {0}", "witness {0}", "gate run {1}", "witness {0}", "out {0}", "witness {0}")
    noop, first = ([s.format(n, on) for s in steps] for n, on in ((NOOP.id, "clean"), ("a/1", "a/1")))
    up, clean = ["up", "gate run clean"], ["up", "gate run clean", "down"]
    assert world.log == [*up, *noop, "down", *up, *first, "down", *clean]


def test_faults_may_share_clean_runs(world: World) -> None:
    """Ten faults on one deployment need one clean run before and one after."""
    cells = world.run(NOOP, *(fault(f"a/{n}") for n in range(9)), every=10)
    assert [c.as_declared for c in cells] == [True] * 10
    assert world.log.count("gate run clean") == 3, "before, after, and the no-op's own"


def test_lanes_have_clean_runs_of_their_own(world: World) -> None:
    """A free lane takes the next fault; each lane makes clean runs of its own, in a folder of its own."""
    folders, both = list[Path](), threading.Barrier(2)

    def run(env: Mapping[str, str], out: Path, *_words: str) -> GateRun:
        folders.append(out)
        if out.name.startswith("clean-") and folders.count(out) == 1:
            both.wait(10)
        return world.gate("run", env)

    world.monkeypatch.setattr(programs, "gate_run", run)
    faults = [NOOP, *(fault(f"a/{n}") for n in range(5))]
    cells = Campaign(world.open, CATALOGUE, world.out, every=10, lanes=2).run(faults)
    assert sorted((c.fault.id, c.as_declared) for c in cells) == sorted((f.id, True) for f in faults)
    clean = Counter(f.name for f in folders if f.parent == world.out)
    assert clean == {"clean-0": 2, "clean-1": 2}


def test_a_campaign_that_is_over_judges_what_it_has_begun(world: World) -> None:
    """When the time is up, the clean run after is still made, and no further fault is begun."""
    over = iter([False, False, False, True])  # asked before the batch, too
    cells = Campaign(world.open, CATALOGUE, world.out, over=lambda: next(over)).run(
        [fault("a/1"), fault("a/2"), fault("a/3")]
    )
    assert [(c.fault.id, c.status) for c in cells] == [("a/1", Status.KILLED), ("a/2", Status.KILLED)]


def test_a_survivor_and_a_fault_that_does_not_come_up_are_told_apart(world: World) -> None:
    """A fault that the gate promotes survived; one that could not be examined is an error of the harness."""
    world.answers = {"gate a/1": "promote", "in a/2": StackError("it did not come up"), "witness a/3": "no answer"}
    cells = world.run(fault("a/1"), fault("a/2"), fault("a/3"), fault("a/4", "drill/unheard-of"))
    assert [c.fault.id for c in cells] == ["a/1", "a/2", "a/3", "a/4"]
    assert [c.status for c in cells] == [Status.SURVIVED, *[Status.HARNESS_ERROR] * 3]


def test_a_fault_that_the_database_refuses_is_not_in(world: World) -> None:
    """Refused SQL counts as not installed, and the gate is not run; a lost connection is an error of the harness."""
    refused, away = psycopg.errors.CheckViolation("the row is not allowed"), psycopg.OperationalError("it is gone")
    world.answers = {"in a/1": refused, "in a/2": away}
    first, second = world.run(fault("a/1"), fault("a/2"))
    said = "it could not be put in: CheckViolation: the row is not allowed"
    assert (first.status, first.reason) == (Status.NOT_INSTALLED, said)
    assert second.status is Status.HARNESS_ERROR
    assert not {"gate run a/1", "gate run a/2"} & {*world.log}


def test_a_red_baseline_runs_no_fault(world: World) -> None:
    """If the clean run fails, the fault is not put in, and the clean run is not repeated."""
    world.cleans = [GateRun(Verdict(Decision.ROLLBACK, "bad", counts=Counts(failed=1)))]
    (cell,) = world.run(fault("a/1"))
    assert cell.status is Status.INVALID_BASELINE
    assert "in a/1" not in world.log


def test_a_clean_run_that_saw_too_little_is_made_once_more(world: World) -> None:
    """A clean run that holds for unknown checks is repeated once; a second hold makes the baseline invalid."""
    hold = GateRun(Verdict(Decision.HOLD, "unknown", counts=Counts(unknown=3)))
    world.cleans = [hold]
    assert world.run(fault("a/1"))[0].status is Status.KILLED
    world.cleans = [hold, hold]
    assert world.run(fault("a/1"))[0].status is Status.INVALID_BASELINE
