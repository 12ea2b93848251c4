"""The fault-kill matrix: clean run, fault, clean run, fault, ..., each fault on a deployment of its own.

A fault may leave its marks in the data for ever (a broken audit chain), so the clean run after it is made on the next
deployment, an identical one, where it is also the clean run before the next fault.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, takewhile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from gates.decision.rules import Policy
from gates.evidence import CheckSpec, TargetKind
from gates.proof.fault import ListedFault
from gates.proof.judgement import Cell, FaultFacts, GateRun, judge
from gates.proof.workbench import programs
from gates.proof.workbench.bench import TROUBLES, OpenBench, ProofBench
from gates.proof.workbench.lanes import IsOver, share_out
from gates.proof.workbench.relay import RelayOptions, Tap, relay

CLEAN_ATTEMPTS = 2
"""How often a clean run is repeated that holds for lack of evidence: a busy machine is no baseline. One that rolled
back, or saw a failure, is not repeated.
"""
MOST_NAME = 120
"""The longest name of a fault's folder: that of several faults is long."""


class _ReleaseBefore(Tap):
    """The same deployment under the name of another release, of the same length."""

    def __init__(self, release: bytes) -> None:
        self.release = release

    async def answered(self, piece: bytes) -> bytes:
        """The answer with the release's name reversed."""
        return piece.replace(b'"%s"' % self.release, b'"%s"' % self.release.swapcase()[::-1])


@dataclass(frozen=True, slots=True)
class RunScope:
    """How to run the gate for a fault: as what, how deep, and whether it is given the previous release. The previous
    release is the deployment without the fault: what a proxy breaks, it breaks only in the new one.
    """

    kind: TargetKind = TargetKind.STAGING
    deep: bool = False
    baseline: bool = False

    def gate(self, bench: ProofBench, out: Path, policy: Sequence[str]) -> GateRun:
        """Run the gate on the bench. It touches no flag."""
        words = (*policy, "--deep") if self.deep else tuple(policy)
        with self.told(bench) as variables:
            return programs.gate_run(variables, out, "--dry-run", *words)

    @contextmanager
    def told(self, bench: ProofBench) -> Iterator[Mapping[str, str]]:
        """The variables of a gate on the bench, during the block."""
        variables = bench.variables(self.kind)
        if not self.baseline:
            yield variables
            return
        parts = urlsplit(bench.stack.info.base_url)
        before = RelayOptions(tap=lambda: _ReleaseBefore(variables["RELEASE"].encode()))
        with relay(f"{parts.scheme}://{parts.netloc}", before) as base:
            yield {**variables, "BASELINE_URL": f"{base}{parts.path}"}

    def policy(self, policy: Policy) -> Policy:
        """The policy of such a run."""
        daring = self.kind is TargetKind.STAGING
        return replace(policy, target=self.kind, deep=self.deep, disruptive=daring)

    def sees(self, spec: CheckSpec) -> bool:
        """Whether such a run includes the check."""
        return self.kind.allows(spec.where, disruptive=True) and (self.deep or not spec.deep)


def scope_of(fault: ListedFault, catalogue: Sequence[CheckSpec], wanted: TargetKind) -> RunScope:
    """The required target; for a fault that only deeper or riskier checks can see, the mildest that runs one. For
    several faults at once: the mildest that runs a check of each.
    """
    declared = [[s for s in catalogue if one.declares(s.id)] for one in fault.each]
    told = any("baseline" in s.needs for own in declared for s in own)
    ways = (RunScope(kind, deep, told) for kind in (wanted, TargetKind.REFERENCE) for deep in (False, True))
    return next((way for way in ways if all(any(map(way.sees, own)) for own in declared)), RunScope(wanted))


def undeclared(fault: ListedFault, catalogue: Sequence[CheckSpec]) -> str:
    """Why the fault cannot be judged: none of its checks exists; empty otherwise, and for a no-op."""
    if fault.is_noop or any(fault.declares(s.id) for s in catalogue):
        return ""
    return f"no check is called {' or '.join(fault.checks)}"


def examined(bench: ProofBench, fault: ListedFault, before: GateRun | None, look: Callable[[], GateRun]) -> FaultFacts:
    """Put the fault in, look, take it out. What the harness cannot do is an error of the harness."""
    started = time.monotonic()
    facts = FaultFacts(before=before)
    if before is None or not before.is_green:
        return facts
    try:
        facts = _steps(bench, fault, facts, look)
    except TROUBLES as error:
        facts = replace(facts, error=f"{type(error).__name__}: {error}")
    return replace(facts, seconds=round(time.monotonic() - started, 1))


class _Unsure(Exception):  # noqa: N818  -- an answer, no error
    """The witness cannot tell whether the fault is on."""


def _steps(bench: ProofBench, fault: ListedFault, facts: FaultFacts, look: Callable[[], GateRun]) -> FaultFacts:
    seen: dict[str, Any] = {}

    def ask(when: str) -> None:
        answer = bench.witness(fault)
        if isinstance(answer, str):
            raise _Unsure(answer)
        seen[when] = answer

    try:
        ask("witness_before")
        try:
            bench.put_in(fault)
        except psycopg.OperationalError:  # the database is down or busy: that says nothing about the fault
            raise
        except psycopg.DatabaseError as error:
            return replace(facts, refused=f"{type(error).__name__}: {error}", **seen)
        ask("witness_on")
        seen["run"] = look()
        ask("witness_still_on")
        bench.take_out(fault)
        ask("witness_after")
    except _Unsure as unsure:
        seen["error"] = str(unsure)
    return replace(facts, **seen)


@dataclass(frozen=True, slots=True)
class Campaign:
    """What a campaign needs.

    open_bench: a fresh deployment for a gate of that kind. every: faults between two clean runs. lanes: deployments in
    parallel. policy: options that name the policy. judged: the cells of a fault. done: called with each cell, examined
    with what is known before. over: whether to begin no further fault. clean: the folder of clean runs.
    """

    open_bench: OpenBench
    catalogue: tuple[CheckSpec, ...]
    out: Path
    wanted: TargetKind = TargetKind.STAGING
    every: int = 1
    lanes: int = 1
    policy: tuple[str, ...] = ()
    judged: Callable[[ListedFault, FaultFacts], list[Cell]] = lambda fault, facts: [judge(fault, facts)]
    done: Callable[[Cell], None] = lambda _cell: None
    clean_done: Callable[[GateRun], None] = lambda _run: None
    examined: Callable[[ListedFault, FaultFacts], None] = lambda _fault, _facts: None
    over: Callable[[], bool] = lambda: False
    clean: str = "clean"

    def run(self, faults: Sequence[ListedFault]) -> list[Cell]:
        """The cells of these faults, the no-ops first. A free lane takes a batch that is run the same way."""
        ways = self._ways(faults)

        def lane(number: int, mine: Iterator[Sequence[ListedFault]], over: IsOver) -> list[Cell]:
            own = replace(self, clean=f"clean-{number}")
            return own._lane(takewhile(lambda _fault: not over(), chain.from_iterable(mine)), ways)  # noqa: SLF001

        found = share_out(self.lanes, self._batches(faults, ways), self.over, lane, "campaign")
        return [cell for cells in found for cell in cells]

    def _batches(self, faults: Sequence[ListedFault], ways: Mapping[str, RunScope]) -> list[list[ListedFault]]:
        """The faults of each way, on as many lanes as find two of them: each lane has its own clean runs. What takes
        longest, and waits most, begins first.
        """
        made = []
        ranks = {way: (way.deep, way.kind is not self.wanted, way.baseline) for way in ways.values()}
        for way in sorted(ranks, key=ranks.__getitem__, reverse=True):
            alike = [f for f in faults if ways[f.id] == way]
            lanes = max(1, min(self.lanes, len(alike) // 2))
            made += [alike[n::lanes] for n in range(lanes)]
        return made

    def _lane(self, faults: Iterable[ListedFault], ways: Mapping[str, RunScope]) -> list[Cell]:
        """One lane's cells of the faults that it takes, with its own clean runs."""
        cells: list[Cell] = []
        waiting: list[tuple[ListedFault, FaultFacts]] = []
        before: GateRun | None = None
        for fault in faults:
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
        return cells + (self._close(waiting, self._clean(ways[waiting[-1][0].id])) if waiting else [])

    def _ways(self, faults: Sequence[ListedFault]) -> dict[str, RunScope]:
        """How the gate is run on each fault. If all faults are examined the same way, so are the no-ops."""
        ways = {f.id: scope_of(f, self.catalogue, self.wanted) for f in faults}
        of_faults = {ways[f.id] for f in faults if not f.is_noop}
        if len(of_faults) == 1:
            (only,) = of_faults
            ways |= {f.id: only for f in faults if f.is_noop}
        return ways

    def _close(self, waiting: list[tuple[ListedFault, FaultFacts]], after: GateRun) -> list[Cell]:
        """Judge what waited for this clean run."""
        cells = [c for fault, facts in waiting for c in self.judged(fault, replace(facts, after=after))]
        waiting.clear()
        for cell in cells:
            self.done(cell)
        return cells

    def _clean(self, way: RunScope, bench: ProofBench | None = None) -> GateRun:
        """A clean run, on this deployment or on its own; repeated on a fresh one if only evidence was missing."""
        result = GateRun(None, 0.0, "there was no clean run")
        for attempt in range(CLEAN_ATTEMPTS):
            try:
                result = self._clean_on(bench, way) if bench and not attempt else self._clean_alone(way)
            except TROUBLES as error:
                result = GateRun(None, 0.0, f"{type(error).__name__}: {error}")
            self.clean_done(result)
            if result.verdict is None or result.is_green or result.verdict.counts.failed:
                break
        return result

    def _clean_alone(self, way: RunScope) -> GateRun:
        with self.open_bench(way.kind) as bench:
            return self._clean_on(bench, way)

    def _clean_on(self, bench: ProofBench, way: RunScope) -> GateRun:
        return way.gate(bench, self.out / self.clean, self.policy)

    def _examine(self, bench: ProofBench, fault: ListedFault, way: RunScope, before: GateRun | None) -> FaultFacts:
        out = self.out / "faults" / fault.id.replace("/", ".")[:MOST_NAME]
        if error := undeclared(fault, self.catalogue):
            return FaultFacts(before=before, error=error)
        return examined(bench, fault, before, lambda: way.gate(bench, out, self.policy))
