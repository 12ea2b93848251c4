"""The short way to a cell of the matrix: a fault is shown to its declared checks alone; the deployment outlives it.

A group of faults shares two clean looks, before and after it, at all checks that its members declare. Its deployment's
database is a copy, made anew for each group. Where the look after it is not green at what a fault declares (it may have
spoilt the data for ever), or the witness cannot tell, that fault is shown again, alone, between two copies. Groups run
on lanes side by side, each with a deployment of its own: most of a fault's time is waiting.
"""

from __future__ import annotations

import datetime as dt
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from gates.decision.decide import weigh
from gates.decision.floor import is_optional
from gates.decision.rules import Policy
from gates.evidence import CheckSpec, Evidence, Outcome, Severity, TargetKind
from gates.evidence_file import read_lines
from gates.proof.fault import Kind, ListedFault, decided
from gates.proof.judgement import Cell, FaultFacts, GateRun, Status, judge
from gates.proof.matrix.campaign import RunScope, examined, scope_of, undeclared
from gates.proof.workbench import programs
from gates.proof.workbench.bench import TROUBLES, OpenBench, ProofBench
from gates.proof.workbench.lanes import IsOver, share_out
from gates.proof.workbench.servant import Servant
from gates.record import EVIDENCE
from gates.stack.errors import StackError
from gates.stages.load_checks import RUN_VALID
from gates.verdict import Decision

GROUP = 8
"""How many faults share their clean looks."""
LANES_A_LOAD = 2
"""How many lanes make one for faults of the load."""
AT_ONCE = 4
"""How many drills of one look run in parallel."""
MOST_CHECKS = 12
"""A fault that declares more checks is shown to so many of them, spread over all."""
LOOK_S, COLLECT_S = 120, 60
COMPANIES, STATE = "companies.txt", "state"
LOAD_ATTEMPTS = 2
SAYS_NOTHING = {Status.INVALID_BASELINE, Status.NOT_INSTALLED}
"""Such a fault is shown once more, alone: it, or one before it, has spoilt the data, or its witness was too slow."""
DRILL, LOAD = "drill/", "load/"
SHORT = (DRILL, "sql/", "alert/", "cohort/", LOAD)
"""Prefixes of the checks that a look can have, those of the load by its stage; preflight checks need a run."""
REQUIRED = "sql/rls/"
"""A fault whose checks may all be unknown is also shown to one of these: a look needs a required check."""


def is_shown(fault: ListedFault, catalogue: Sequence[CheckSpec]) -> bool:
    """Whether the short way can show the fault: all its declared checks can look by themselves. SQL checks see a
    program's fault only through the traffic of a run.
    """
    return _is_shown(fault, [s for s in catalogue if fault.declares(s.id)])


def _is_shown(fault: ListedFault, declared: Sequence[CheckSpec]) -> bool:
    return bool(_alone(fault, declared)) and all(s.id.startswith(SHORT) for s in declared)


def is_short(fault: ListedFault, catalogue: Sequence[CheckSpec]) -> bool:
    """Whether the short way also surely reaches the required decision: it follows from the fault's own checks."""
    declared = [s for s in catalogue if fault.declares(s.id)]
    pages = any(s.severity is Severity.PAGE for s in _alone(fault, declared))
    comes_to = Decision.ROLLBACK if pages else Decision.HOLD
    return _is_shown(fault, declared) and decided(fault, declared).decision is comes_to


def _alone(fault: ListedFault, declared: Sequence[CheckSpec]) -> list[CheckSpec]:
    return [s for s in declared if s.id.startswith((DRILL, LOAD)) or fault.kind in {Kind.SQL, Kind.TRIGGER}]


def is_loaded(fault: ListedFault, catalogue: Sequence[CheckSpec]) -> bool:
    return any(one.declares(s.id) for one in fault.each for s in catalogue if s.id.startswith(LOAD))


def looks_of(fault: ListedFault, catalogue: Sequence[CheckSpec], way: RunScope) -> tuple[CheckSpec, ...]:
    """The checks that see the fault: at most so many of the declared ones, and their prerequisites."""
    found = set[str]()
    for one in fault.each:
        declared = [s for s in catalogue if one.declares(s.id) and way.sees(s)]
        count = min(len(declared), MOST_CHECKS)
        found |= {declared[i * len(declared) // count].id for i in range(count)}
    if found and all(map(is_optional, found)):
        found.add(next(s.id for s in catalogue if s.id.startswith(REQUIRED) and way.sees(s)))
    known, waiting = {s.id: s for s in catalogue}, list(found)
    while waiting:
        before = {c for c in known[waiting.pop()].after if c.startswith(SHORT)} - found
        found |= before
        waiting += before
    return tuple(known[check] for check in sorted(found) if way.sees(known[check]))


@dataclass(frozen=True, slots=True)
class Shown:
    """A fault, and the checks that see it."""

    fault: ListedFault
    checks: tuple[CheckSpec, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Faults that share clean looks, and how the gate is run on them."""

    way: RunScope
    members: tuple[Shown, ...]


def groups(faults: Sequence[ListedFault], catalogue: Sequence[CheckSpec], wanted: TargetKind) -> list[Group]:
    """The faults in groups of similar declared checks. A no-op gets all checks of the first group."""
    ways: dict[tuple[RunScope, bool], list[Shown]] = {}
    for fault in faults:
        if not fault.is_noop:
            way = scope_of(fault, catalogue, wanted)
            shown = Shown(fault, looks_of(fault, catalogue, way))
            ways.setdefault((way, _has_load(shown.checks)), []).append(shown)
    made = []
    for (way, _), alike in ways.items():
        ordered = sorted(alike, key=lambda s: [c.id for c in s.checks])
        made += [Group(way, tuple(ordered[i : i + GROUP])) for i in range(0, len(ordered), GROUP)]
    noops = [f for f in faults if f.is_noop]
    if made and noops:
        every = _union(made[0].members)
        made[0] = Group(made[0].way, (*(Shown(f, every) for f in noops), *made[0].members))
    return made


def _length(group: Group) -> tuple[bool, bool, bool, int]:
    """Sorts groups by what they take: deep ones wait, and those that break the reference restart it. Loads, which
    measure times, come when the other lanes have nothing left.
    """
    every = _union(group.members)
    return not _has_load(every), group.way.deep, group.way.kind is TargetKind.REFERENCE, len(every)


def _has_load(checks: Iterable[CheckSpec]) -> bool:
    return any(s.id.startswith(LOAD) for s in checks)


def _union(members: Iterable[Shown]) -> tuple[CheckSpec, ...]:
    return tuple({spec.id: spec for one in members for spec in one.checks}.values())


@dataclass(frozen=True, slots=True)
class Looked:
    """The result of one look. `error`: why it failed."""

    evidence: tuple[Evidence, ...] = ()
    seconds: float = 0.0
    error: str = ""

    def then(self, later: Looked) -> Looked:
        return Looked((*self.evidence, *later.evidence), self.seconds + later.seconds, self.error or later.error)

    def weighed(self, specs: Sequence[CheckSpec], policy: Policy) -> GateRun:
        """The gate's decision on these checks alone."""
        if self.error:
            return GateRun(None, self.seconds, self.error)
        ids = {s.id for s in specs}
        own = [e for e in self.evidence if e.check in ids]
        verdict = weigh(own, replace(policy, catalogue=tuple(specs)), dt.datetime.now(dt.UTC))
        return GateRun(verdict, self.seconds, "", tuple((e.check, e.duration_ms / 1000, e.samples) for e in own))


Look = Callable[[Sequence[CheckSpec]], Looked]


class Looker:
    """Runs checks on a bench, in the folder `out`, through a pytest that has collected them all before."""

    def __init__(self, bench: ProofBench, policy: Policy, out: Path, policy_options: Sequence[str] = ()) -> None:
        self._bench, self._policy, self._out, self._policy_options = bench, policy, out, policy_options
        out.mkdir(parents=True, exist_ok=True)
        self._ini = out / "pytest.ini"
        self._ini.write_text("[pytest]\n", encoding="utf-8")
        words = (sys.executable, "-m", "gates.proof.matrix.warm", str(self._ini))
        self._pytest = Servant(words, programs.clean(bench.environ, {}))

    def look(self, specs: Sequence[CheckSpec], way: RunScope, *more: str) -> Looked:
        """Run these checks now, with more options of pytest. Earlier looks are not remembered."""
        drills = [s for s in specs if s.id.startswith(DRILL)]
        reads = [s for s in specs if not s.id.startswith((DRILL, LOAD))]
        found = Looked()
        shutil.rmtree(self._out / STATE, ignore_errors=True)
        (self._out / COMPANIES).write_text("", encoding="utf-8")
        for part in filter(None, (drills, reads)):
            found = found.then(self._by_pytest(part, way, *more))
        if len(drills) + len(reads) < len(specs) and not found.error:
            found = found.then(self._by_the_load(way))
        return found

    def _by_the_load(self, way: RunScope) -> Looked:
        """Run the load stage: all its checks at once. An invalid measurement is repeated."""
        out, found = self._out / "load", Looked()
        for _ in range(LOAD_ATTEMPTS):
            with way.told(self._bench) as variables:
                run = programs.stage_run("load", variables, out, *self._policy_options)
            evidence = () if run.error else tuple(read_lines(out / EVIDENCE))
            found = Looked(evidence, run.seconds, run.error)
            if not any(e.check == RUN_VALID and e.outcome is Outcome.UNKNOWN for e in evidence):
                break
        return found

    def _by_pytest(self, specs: Sequence[CheckSpec], way: RunScope, *more: str) -> Looked:
        """Run these checks, which are either all drills or none."""
        evidence, companies, state = (self._out / name for name in (EVIDENCE, COMPANIES, STATE))
        evidence.unlink(missing_ok=True)
        options = [f"--evidence={evidence}", *["--deep"] * way.deep, *more]
        options += ["--disruptive"] * (way.kind is TargetKind.STAGING)
        if specs[0].id.startswith(DRILL):
            options += [f"--companies={companies}", f"--at-once={AT_ONCE}"]
        else:  # SQL checks share a session, which no fork may use
            steps = ",".join(map(str, self._policy.rollout.steps))
            options += [f"--exclude-companies={companies}", f"--state={state}", f"--steps={steps}"]
        question = {
            "checks": [s.id for s in specs],
            "environ": self._bench.variables(way.kind),
            "options": options,
            "log": str(self._out / "look.log"),
            "timeout_s": LOOK_S,
        }
        started = time.monotonic()
        try:
            code = self._pytest.ask(question, LOOK_S + COLLECT_S)["code"]
        except StackError as error:
            return Looked((), time.monotonic() - started, str(error))
        seconds = time.monotonic() - started
        if code not in {0, 1}:
            return Looked((), seconds, f"pytest ended with {code}; allowed: 0 or 1. See {question['log']}")
        return Looked(tuple(read_lines(evidence)), seconds)

    def close(self) -> None:
        self._pytest.close()


@dataclass(frozen=True, slots=True)
class ShortWay:
    """What the short way needs. open_bench: a fresh deployment. done: called with each cell, by the lanes. over:
    whether to begin nothing more.
    """

    open_bench: OpenBench
    policy: Policy
    out: Path
    policy_options: tuple[str, ...] = ()
    wanted: TargetKind = TargetKind.STAGING
    lanes: int = 2
    done: Callable[[Cell], None] = lambda _cell: None
    clean_done: Callable[[GateRun], None] = lambda _run: None
    over: Callable[[], bool] = lambda: False

    def run(self, faults: Sequence[ListedFault]) -> None:
        """Show every fault, on the lanes."""
        made = groups(faults, self.policy.catalogue, self.wanted)
        ordered = sorted(made, key=_length, reverse=True)  # what begins last ends last
        loads = threading.Semaphore(max(1, self.lanes // LANES_A_LOAD))
        share_out(self.lanes, ordered, self.over, partial(self._lane, loads))

    def _lane(self, loads: threading.Semaphore, number: int, waiting: Iterator[Group], over: IsOver) -> None:
        """Process groups one after another; replace a broken deployment."""
        for first in waiting:
            with ExitStack() as stack:
                bench = stack.enter_context(self.open_bench(self.wanted))
                looker = Looker(bench, self.policy, self.out / "lanes" / str(number), self.policy_options)
                stack.callback(looker.close)
                for group in chain([first], waiting):
                    if over():
                        return
                    with loads if _has_load(_union(group.members)) else nullcontext():
                        cells = self._group(bench, looker, group)
                    if any(c.status is Status.HARNESS_ERROR for c in cells):
                        break

    def _group(self, bench: ProofBench, looker: Looker, group: Group) -> list[Cell]:
        cells = []
        for cell, shown in zip(self._judged(bench, looker, group), group.members, strict=True):
            alone = Group(group.way, (shown,))
            cells += self._judged(bench, looker, alone, apart=True) if cell.status in SAYS_NOTHING else [cell]
            self.done(cells[-1])
        return cells

    def _judged(self, bench: ProofBench, looker: Looker, group: Group, *, apart: bool = False) -> list[Cell]:
        """The cells of a group; `apart`: the clean look after it is on a copy of its own."""
        facts = [FaultFacts() for _ in group.members]
        try:
            facts = list(self._facts(bench, looker, group, apart=apart))
        except TROUBLES as error:
            said = f"{type(error).__name__}: {error}"
            facts = [replace(f, error=said) for f in facts]
        return [replace(judge(s.fault, f), short=True) for s, f in zip(group.members, facts, strict=True)]

    def _facts(self, bench: ProofBench, looker: Looker, group: Group, *, apart: bool) -> list[FaultFacts]:
        every, way = _union(group.members), group.way
        policy = way.policy(self.policy)

        def look(specs: Sequence[CheckSpec]) -> Looked:
            return looker.look(specs, way)

        bench.renew()
        before, found = look(every), list[FaultFacts]()
        self.clean_done(before.weighed(every, policy))
        for one in group.members:
            error = undeclared(one.fault, self.policy.catalogue)
            found.append(FaultFacts(error=error) if error else self._shown(bench, look, one, before, policy))
        if apart:
            bench.renew()
        after = look(every)
        self.clean_done(after.weighed(every, policy))
        return [
            replace(facts, after=after.weighed(s.checks, policy)) for facts, s in zip(found, group.members, strict=True)
        ]

    def _shown(self, bench: ProofBench, look: Look, one: Shown, before: Looked, policy: Policy) -> FaultFacts:
        def run() -> GateRun:
            return look(one.checks).weighed(one.checks, policy)

        return examined(bench, one.fault, before.weighed(one.checks, policy), run)
