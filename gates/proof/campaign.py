"""The fault-kill matrix: clean run, fault, clean run, fault, ..., each fault on a deployment of its own.

A fault may leave its marks in the data for ever (a broken audit chain), so the clean run after it is made on the next
deployment, an identical one, where it is also the clean run before the next fault.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from gates.evidence import CheckSpec, TargetKind
from gates.proof import programs
from gates.proof.bench import Bench, OpenBench
from gates.proof.fault import Fault
from gates.proof.judgement import Cell, FaultFacts, GateRun, judge
from gates.stack.errors import StackError

CLEAN_ATTEMPTS = 2
"""A clean run that holds for want of evidence may be made once more: a busy machine is no baseline. One that rolled
back, or saw a failure, is not repeated."""


STAGES = {"drill": "drill", "sql": "sql", "alert": "alerts", "load": "load"}
"""The stage that a check belongs to, by the first word of its id."""


@dataclass(frozen=True, slots=True)
class RunScope:
    """How to run the gate for a fault: the smallest stage with a declared check. An empty `stage`: the whole gate."""

    kind: TargetKind = TargetKind.STAGING
    deep: bool = False
    stage: str = ""

    def gate(self, bench: Bench, out: Path, policy: Sequence[str]) -> GateRun:
        """Run the gate on the bench. A stage alone never touches a flag; the whole gate is told not to."""
        words = (*policy, "--deep") if self.deep else tuple(policy)
        if self.stage:
            return programs.stage_run(self.stage, bench.variables(self.kind), out, *words)
        return programs.gate_run(bench.variables(self.kind), out, "--dry-run", *words)


def scope_of(fault: Fault, catalogue: Sequence[CheckSpec], wanted: TargetKind, *, quick: bool = False) -> RunScope:
    """The wanted target; for a fault that only deeper or more daring checks can see, the least that runs one. Quick:
    the stage of the declared checks alone, where they are all of one.
    """
    declared = [s for s in catalogue if fault.declares(s.id)]
    stages = {STAGES.get(s.id.partition("/")[0], "") for s in declared}
    stage = stages.pop() if quick and len(stages) == 1 else ""
    ways = (RunScope(kind, deep, stage) for kind in (wanted, TargetKind.REFERENCE) for deep in (False, True))
    for way in ways:
        if any(way.kind.allows(s.where, disruptive=True) and (way.deep or not s.deep) for s in declared):
            return way
    return RunScope(wanted)


@dataclass(frozen=True, slots=True)
class Campaign:
    """What a campaign needs. open_bench: a fresh deployment for a gate of that kind; every: faults between two clean
    runs; policy: options that name the policy; done: called with each cell, examined with what is known before.
    """

    open_bench: OpenBench
    catalogue: tuple[CheckSpec, ...]
    out: Path
    wanted: TargetKind = TargetKind.STAGING
    every: int = 1
    policy: tuple[str, ...] = ()
    done: Callable[[Cell], None] = lambda _cell: None
    clean_done: Callable[[GateRun], None] = lambda _run: None
    examined: Callable[[Fault, FaultFacts], None] = lambda _fault, _facts: None

    def run(self, faults: Sequence[Fault]) -> list[Cell]:
        """The cells of these faults, the no-ops first."""
        ways = self._ways(faults)
        ordered = sorted(faults, key=lambda f: _rank(ways[f.id], self.wanted))
        cells: list[Cell] = []
        waiting: list[tuple[Fault, FaultFacts]] = []
        before: GateRun | None = None
        for position, fault in enumerate(ordered):
            way = ways[fault.id]
            changed = bool(waiting) and ways[waiting[0][0].id] != way
            if changed:
                cells += self._close(waiting, self._clean(ways[waiting[0][0].id]))
            with self.open_bench(way.kind) as bench:
                if not waiting or len(waiting) >= self.every:
                    before = self._clean(way, bench)
                    cells += self._close(waiting, before)
                waiting.append((fault, self._examine(bench, fault, way, before)))
                self.examined(*waiting[-1])
            if position == len(ordered) - 1:
                cells += self._close(waiting, self._clean(way))
        return cells

    def _ways(self, faults: Sequence[Fault]) -> dict[str, RunScope]:
        """How the gate is run on each. A no-op is examined as the faults are, where they are all examined alike."""
        ways = {f.id: scope_of(f, self.catalogue, self.wanted, quick=self.every > 1) for f in faults}
        of_faults = {ways[f.id] for f in faults if not f.is_noop}
        if len(of_faults) == 1:
            (only,) = of_faults
            ways |= {f.id: only for f in faults if f.is_noop}
        return ways

    def _close(self, waiting: list[tuple[Fault, FaultFacts]], after: GateRun) -> list[Cell]:
        """Judge what waited for this clean run."""
        cells = [judge(fault, dataclasses.replace(facts, after=after)) for fault, facts in waiting]
        waiting.clear()
        for cell in cells:
            self.done(cell)
        return cells

    def _clean(self, way: RunScope, bench: Bench | None = None) -> GateRun:
        """A clean run, on this deployment or on one of its own; once more on a fresh one if nothing but evidence was
        missing.
        """
        result = GateRun(None, 0.0, "there was no clean run")
        for attempt in range(CLEAN_ATTEMPTS):
            try:
                result = self._clean_on(bench, way) if bench and not attempt else self._clean_alone(way)
            except (StackError, psycopg.Error, OSError) as error:
                result = GateRun(None, 0.0, f"{type(error).__name__}: {error}")
            self.clean_done(result)
            if result.verdict is None or result.is_green or result.verdict.counts.failed:
                break
        return result

    def _clean_alone(self, way: RunScope) -> GateRun:
        with self.open_bench(way.kind) as bench:
            return self._clean_on(bench, way)

    def _clean_on(self, bench: Bench, way: RunScope) -> GateRun:
        return way.gate(bench, self.out / "clean", self.policy)

    def _examine(self, bench: Bench, fault: Fault, way: RunScope, before: GateRun | None) -> FaultFacts:
        """Put the fault in, look, take it out. Whatever the harness cannot do is an error of the harness."""
        started = time.monotonic()
        facts = FaultFacts(before=before)
        if before is None or not before.is_green:
            return facts
        if not fault.is_noop and not any(fault.declares(s.id) for s in self.catalogue):
            return dataclasses.replace(facts, error=f"no check is called {' or '.join(fault.checks)}")
        try:
            facts = self._steps(bench, fault, way, facts)
        except (StackError, psycopg.Error, OSError) as error:
            facts = dataclasses.replace(facts, error=f"{type(error).__name__}: {error}")
        return dataclasses.replace(facts, seconds=round(time.monotonic() - started, 1))

    def _steps(self, bench: Bench, fault: Fault, way: RunScope, facts: FaultFacts) -> FaultFacts:
        seen: dict[str, bool | GateRun] = {}
        out = self.out / "faults" / fault.id.replace("/", ".")

        def look(when: str) -> str:
            answer = bench.witness(fault)
            if isinstance(answer, str):
                return answer
            seen[when] = answer
            return ""

        def step(act: Callable[[], object]) -> str:
            act()
            return ""

        def gate() -> str:
            seen["run"] = way.gate(bench, out, self.policy)
            return ""

        error = (
            look("witness_before")
            or step(lambda: bench.put_in(fault))
            or look("witness_on")
            or gate()
            or look("witness_still_on")
            or step(lambda: bench.take_out(fault))
            or look("witness_after")
        )
        return dataclasses.replace(facts, error=error, **seen)  # type: ignore[arg-type]


def _rank(way: RunScope, wanted: TargetKind) -> tuple[bool, bool, str]:
    return way.kind is not wanted, way.deep, way.stage
