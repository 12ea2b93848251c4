"""The short way: which checks a fault is shown to, what groups share, what is shown again, and a real look."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gates import catalogue
from gates.decision.rules import Policy
from gates.evidence import CheckSpec, Evidence, Outcome, Severity, TargetKind, Where, stamp
from gates.evidence_file import write_lines
from gates.proof.fault import Kind, ListedFault
from gates.proof.judgement import Cell, GateRun, Status
from gates.proof.matrix import short
from gates.proof.matrix.campaign import RunScope
from gates.proof.matrix.short import MOST_CHECKS, Looked, Looker, ShortWay, groups, is_short, is_shown, looks_of
from gates.proof.workbench import programs
from gates.proof.workbench.bench import ProofBench
from gates.record import EVIDENCE
from gates.stack.errors import StackError
from gates.stack.stack import Stack
from gates.stages.context import now
from gates.stages.load_checks import RUN_VALID
from gates.verdict import Decision, Verdict

NOOP = ListedFault("noop/nothing", "Nothing.", Kind.NONE, Decision.PROMOTE)
STAGING = RunScope(TargetKind.STAGING)


def spec(check: str, *after: str) -> CheckSpec:
    return CheckSpec(check, "", "", Severity.PAGE, Where.READ_ONLY, after=after)


CATALOGUE = (
    *(spec(f"drill/{n}/a") for n in range(30)),
    spec("drill/late/a", "drill/first/a", "preflight/database"),
    spec("drill/first/a", "drill/0/a"),
    dataclasses.replace(spec("drill/daring/a"), where=Where.REFERENCE, deep=True),
    spec("preflight/ready"),
    spec("load/x/p95"),
    spec("sql/counts"),
    spec("sql/rls/tenants"),
    spec("alert/lag"),
    spec("cohort/share"),
)


def fault(name: str, *checks: str, **more: Any) -> ListedFault:
    more = {"kind": Kind.SQL, "sql": "select 1", "decision": Decision.ROLLBACK, **more}
    return ListedFault(id=name, breaks="x", checks=checks or (f"drill/{name}/a",), names=("it",), **more)


@pytest.mark.parametrize(
    ("one", "due"),
    [
        (fault("0"), True),
        (fault("0", "drill/0/a", "load/x/p95"), True),
        (fault("0", "load/x/p95", kind=Kind.SERVICE), True),
        (fault("0", kind=Kind.PROCESS), True),
        (fault("0", "drill/0/a", "preflight/ready"), False),
        (fault("0", "drill/unheard-of"), False),
        (fault("0", decision=Decision.HOLD), False),
        (fault("0", "sql/counts"), True),
        (fault("0", "alert/lag", "cohort/share"), True),
        (fault("0", "alert/lag", kind=Kind.WORKER), False),
        (fault("0", "sql/counts", kind=Kind.SERVICE), False),
    ],
)
def test_the_short_way_leaves_to_the_whole_gate_what_only_a_run_sees(one: ListedFault, due: bool) -> None:
    """It skips faults that need a preflight, traffic or another decision, and those without a check."""
    assert is_short(one, CATALOGUE) is due


def test_a_decision_of_other_checks_is_tried_by_the_short_way() -> None:
    """A fault whose due decision comes from other checks is tried, but the whole gate has the last word."""
    other = fault("0", decision=Decision.HOLD)
    assert is_shown(other, CATALOGUE)
    assert not is_short(other, CATALOGUE)


def test_a_fault_is_shown_to_its_checks_and_what_they_come_after() -> None:
    """A look has the declared checks and their prerequisites, up to a limit."""
    shown = looks_of(fault("x", "drill/late/a"), CATALOGUE, STAGING)
    assert [s.id for s in shown] == ["drill/0/a", "drill/first/a", "drill/late/a"]
    assert len(looks_of(fault("x", "drill/*/a"), CATALOGUE[:30], STAGING)) == MOST_CHECKS


def test_a_look_has_a_check_that_is_required() -> None:
    """Optional checks alone give no verdict, so a required SQL check is added to them."""
    shown = looks_of(fault("x", "cohort/share"), CATALOGUE, STAGING)
    assert [s.id for s in shown] == ["cohort/share", "sql/rls/tenants"]
    assert [s.id for s in looks_of(fault("x", "sql/counts"), CATALOGUE, STAGING)] == ["sql/counts"]


def test_a_group_has_one_way_and_the_noop_stands_in_the_first() -> None:
    """The no-op is shown to all checks of the faults in its group."""
    made = groups([NOOP, *(fault(str(n)) for n in range(20))], CATALOGUE, TargetKind.STAGING)
    assert [len(g.members) for g in made] == [9, 8, 4]
    noop = made[0].members[0]
    assert noop.fault is NOOP
    assert {c.id for c in noop.checks} == {f"drill/{s.fault.id}/a" for s in made[0].members[1:]}


class FakeDeployment(ProofBench):
    """A deployment that knows which fault is in, and which checks earlier faults have spoilt."""

    def __init__(self, world: World) -> None:
        self.world, self.on, self.spoilt = world, "", set[str]()

    def witness(self, fault: ListedFault) -> bool | str:
        return self.on == fault.id and not fault.is_noop

    def put_in(self, fault: ListedFault) -> None:
        self.on = fault.id
        if fault.id in self.world.broken:
            raise StackError("it did not come up")
        if fault.id in self.world.spoiling:
            self.spoilt.add(f"drill/{fault.id}/a")

    def take_out(self, fault: ListedFault) -> None:
        assert self.on == fault.id
        self.on = ""

    def renew(self, source: Path | None = None) -> None:
        assert source is None
        self.world.renewed += 1
        self.spoilt.clear()


class World:
    """Deployments in which each fault fails the check of its name, unless it is `hidden`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.hidden, self.spoiling, self.broken = set[str](), set[str](), set[str]()
        self.opened = self.renewed = 0
        self.out = tmp_path
        self.looks: list[int] = []
        world = self

        class FakeLooker:
            def __init__(self, bench: FakeDeployment, *_more: object) -> None:
                self.bench = bench

            def look(self, specs: Sequence[CheckSpec], _way: RunScope) -> Looked:
                world.looks.append(len(specs))
                bad = self.bench.spoilt | ({f"drill/{self.bench.on}/a"} - {f"drill/{h}/a" for h in world.hidden})
                return Looked(tuple(seen(s.id, is_bad=s.id in bad) for s in specs))

            def close(self) -> None:
                pass

        monkeypatch.setattr(short, "Looker", FakeLooker)

    @contextmanager
    def open(self, kind: TargetKind, **_options: Any) -> Iterator[ProofBench]:
        assert kind is TargetKind.STAGING
        self.opened += 1
        yield FakeDeployment(self)

    def run(self, *faults: ListedFault) -> dict[str, Cell]:
        cells: list[Cell] = []
        policy = Policy(catalogue=CATALOGUE, target=TargetKind.STAGING)
        ShortWay(self.open, policy, self.out, lanes=1, done=cells.append).run(faults)
        assert all(c.short for c in cells)
        return {c.fault.id: c for c in cells}


def seen(check: str, *, is_bad: bool) -> Evidence:
    outcome, said = (Outcome.FAIL, "it is wrong") if is_bad else (Outcome.PASS, "")
    return Evidence(check, outcome, said, samples=1, started_at=stamp(now()))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    return World(monkeypatch, tmp_path)


def test_a_group_shares_a_copy_and_two_clean_looks(world: World) -> None:
    """A group needs two clean looks at all its checks, and one look for each fault at its own."""
    world.hidden = {"2"}
    cells = world.run(NOOP, fault("0"), fault("1"), fault("2"))
    assert {k: c.status for k, c in cells.items()} == {
        NOOP.id: Status.SURVIVED, "0": Status.KILLED, "1": Status.KILLED, "2": Status.SURVIVED,
    }  # fmt: skip
    assert world.looks == [3, 3, 1, 1, 1, 3]
    assert (world.opened, world.renewed) == (1, 1)


def test_a_fault_of_a_daring_check_is_judged_as_such_a_run_does(world: World) -> None:
    """A check for the reference alone is required where its fault is shown."""
    assert world.run(fault("daring"))["daring"].status is Status.KILLED


def test_what_a_fault_has_spoilt_is_held_against_no_other_and_it_is_shown_again_alone(world: World) -> None:
    """A fault that leaves damage in the data is shown again, between clean looks at fresh copies."""
    world.spoiling = {"0"}
    cells = world.run(fault("0"), fault("1"))
    assert {k: c.status for k, c in cells.items()} == {"0": Status.KILLED, "1": Status.KILLED}
    assert world.renewed == 3, "the group's, and two for the fault alone"


def test_a_check_that_is_red_without_the_fault_proves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that fails on every copy before the fault is in makes the baseline invalid."""
    monkeypatch.setattr(FakeDeployment, "renew", lambda self: self.spoilt.add("drill/0/a"))
    cells = world.run(fault("0"), fault("1"))
    assert {k: c.status for k, c in cells.items()} == {"0": Status.INVALID_BASELINE, "1": Status.KILLED}


def test_a_deployment_that_a_fault_broke_is_replaced(world: World) -> None:
    """The fault is an error of the harness, and the next group gets a new deployment."""
    world.broken = {"0"}
    cells = world.run(*(fault(str(n)) for n in range(10)))
    assert [k for k, c in cells.items() if c.status is not Status.KILLED] == ["0"]
    assert cells["0"].status is Status.HARNESS_ERROR
    assert world.opened == 2


def test_a_look_that_pytest_could_not_carry_out_is_no_verdict() -> None:
    """An error of pytest gives no verdict, and a look that lacks a check is not green."""
    assert Looked(error="pytest ended with 4").weighed(CATALOGUE[:1], Policy()).verdict is None
    (other,) = (seen("drill/0/a", is_bad=False),)
    assert not Looked((other,)).weighed(CATALOGUE[:2], Policy()).is_green


def test_a_real_look_runs_these_checks_alone(reference: Stack, tmp_path: Path) -> None:
    """One look runs drills and SQL checks; a look that cannot start is an error, and the next one works."""
    wanted = {"drill/http-surface/open-routes", "sql/spot/rls-enabled"}
    specs = [s for s in catalogue.load() if s.id in wanted]
    bench = ProofBench(reference, os.environ)
    looker = Looker(bench, Policy(), tmp_path)
    try:
        looked = looker.look(specs, STAGING)
        assert {e.check: e.outcome for e in looked.evidence} == dict.fromkeys(wanted, Outcome.PASS), looked.error
        unheard = looker.look([spec("drill/unheard-of")], STAGING)
        assert unheard.error.startswith("pytest ended with 3")
        assert not looker.look(specs[:1], STAGING).error
    finally:
        looker.close()


@pytest.mark.parametrize(("valid", "made"), [((True,), 1), ((False, True), 2), ((False, False), 2)])
def test_the_load_is_its_stage_and_is_made_once_more_where_it_was_no_measurement(
    valid: tuple[bool, ...], made: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The load runs as the gate's stage; an invalid measurement is repeated once, then its evidence is weighed."""
    runs = list[tuple[str, Path]]()

    def stage_run(stage: str, environ: Mapping[str, str], out: Path, *_options: str) -> GateRun:
        assert environ == {"GATE_TARGET": "staging"}
        outcome = Outcome.PASS if valid[len(runs)] else Outcome.UNKNOWN
        runs.append((stage, out))
        out.mkdir(exist_ok=True)
        (out / EVIDENCE).unlink(missing_ok=True)
        late = Evidence("load/x/p95", Outcome.FAIL, "it is late", samples=9, started_at=stamp(now()))
        write_lines(out / EVIDENCE, [Evidence(RUN_VALID, outcome, "seen", samples=9, started_at=stamp(now())), late])
        return GateRun(Verdict(Decision.HOLD, "a stage alone"), 1.0)

    class Told(FakeDeployment):
        environ: Mapping[str, str] = {}

        def __init__(self) -> None:
            pass

        def variables(self, kind: TargetKind | None = None) -> dict[str, str]:
            assert kind is TargetKind.STAGING
            return {"GATE_TARGET": kind.value}

    monkeypatch.setattr(programs, "stage_run", stage_run)
    spec_of_it = [s for s in CATALOGUE if s.id == "load/x/p95"]
    looked = Looker(Told(), Policy(), tmp_path).look(spec_of_it, STAGING)
    verdict = looked.weighed(spec_of_it, Policy(target=TargetKind.STAGING)).verdict
    assert verdict is not None
    assert verdict.decision is Decision.ROLLBACK
    assert runs == [("load", tmp_path / "load")] * made
