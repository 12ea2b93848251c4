"""Shows mutants to the gate: to the checks that are near, to all, to the whole gate; the first that sees it ends that.

A mutant is killed where the gate would not promote. A failure must be seen twice, a look without one that does not come
to a promote is made once more on a fresh copy; after every few what killed them must pass on a clean deployment.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from gates.decision.rules import Policy
from gates.evidence import CheckSpec
from gates.proof.bench import Bench, OpenBench
from gates.proof.campaign import RunScope
from gates.proof.judgement import GateRun
from gates.proof.mutants.mutant import Mutant, planted
from gates.proof.mutants.nearness import nearest
from gates.proof.short import Looker
from gates.proof.trial import ProofPart, Trial
from gates.stack.errors import StackError
from gates.stack.service import SOURCE_ROOT
from gates.verdict import Decision, Finding

ALLOWED = (Decision.HOLD.value, Decision.ROLLBACK.value)
NEAR = 24
GROUP = 8
TROUBLES = (StackError, psycopg.Error, OSError)
EQUIVALENT, HOLE = "equivalent: ", "hole: the gate promoted: "
DEAD = "it did not start; "
MANIFEST = "sql/manifest/"
"""These compare a schema with the one that is shipped, and so they come last: what they alone see, nobody sees where a
wrong migration came with a manifest that was made from it.
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a mutant. killers: the checks that failed twice; error: why nobody knows."""

    run: GateRun
    killers: tuple[str, ...] = ()
    starts: bool = True
    error: str = ""

    @property
    def is_killed(self) -> bool:
        return not self.error and self.run.verdict is not None and self.run.verdict.decision is not Decision.PROMOTE


@dataclass(frozen=True, slots=True)
class MutantCampaign:
    """What the campaign needs. equivalents: why a mutant may be promoted, by its key; done: called with each result, by
    the lanes; over: whether no further one is to be begun.
    """

    open_bench: OpenBench
    policy: Policy
    policy_options: tuple[str, ...]
    out: Path
    way: RunScope
    equivalents: Mapping[str, str]
    lanes: int = 2
    short: bool = False
    """Show none to the whole gate."""
    done: Callable[[Trial], None] = lambda _trial: None
    over: Callable[[], bool] = lambda: False

    def run(self, mutants: Sequence[Mutant]) -> None:
        """Show every one, on the lanes. Those of the schema come last: they spoil the database for the others."""
        ordered = sorted(mutants, key=lambda m: m.is_schema)
        waiting, stop = deque(ordered[i : i + GROUP] for i in range(0, len(ordered), GROUP)), threading.Event()
        with ThreadPoolExecutor(self.lanes) as pool:
            lanes = [pool.submit(self._lane, n, waiting, stop) for n in range(min(self.lanes, len(waiting)))]
            try:
                for lane in lanes:
                    lane.result()
            finally:
                stop.set()

    def _lane(self, number: int, waiting: deque[list[Mutant]], stop: threading.Event) -> None:
        with ExitStack() as stack:
            bench = stack.enter_context(self.open_bench(self.way.kind))
            looker = Looker(bench, self.policy, self.out / "lanes" / f"mutants-{number}")
            stack.callback(looker.close)
            shown = _Lane(self, bench, looker, number)
            while waiting and not stop.is_set() and not self.over():
                try:
                    group = waiting.popleft()
                except IndexError:
                    return
                shown.group(group, lambda: stop.is_set() or self.over())

    def judged(self, mutant: Mutant, seen: Seen, seconds: float) -> Trial:
        """The result of a mutant."""
        why, said = self.equivalents.get(mutant.key, ""), mutant.said
        verdict = seen.run.verdict
        decision = verdict.decision.value if verdict and not seen.error else ""
        reason = seen.error or (verdict.reason if verdict else seen.run.error)
        if decision == Decision.PROMOTE.value:
            reason = f"{EQUIVALENT}{why}" if why else f"{HOLE}{reason}"
        elif seen.is_killed:
            reason = ("" if seen.starts else DEAD) + (", ".join(seen.killers[:3]) or f"held: {reason}")
            if why:
                reason = f"killed, and said to be equivalent ({why}): {reason}"
        ok = seen.is_killed != bool(why) and bool(decision)
        return Trial(ProofPart.MUTANTS, mutant.id, said, ALLOWED, decision, ok, reason, round(seconds, 1), seen.killers)


@dataclass
class _Lane:
    """One deployment, on which mutants are shown one after another."""

    campaign: MutantCampaign
    bench: Bench
    looker: Looker
    number: int

    def group(self, mutants: Sequence[Mutant], over: Callable[[], bool]) -> None:
        """Show these, and then what killed them a clean deployment; once more where that does not pass."""
        found: list[tuple[Mutant, Seen, float]] = []
        for mutant in mutants:
            if over():
                break
            found.append(self._timed(mutant))
        flaky = self._flaky({check for _, seen, _ in found for check in seen.killers})
        for mutant, seen, seconds in found:
            again = bool(seen.killers) and flaky.issuperset(seen.killers)
            self.campaign.done(self.campaign.judged(*(self._timed(mutant) if again else (mutant, seen, seconds))))

    def _timed(self, mutant: Mutant) -> tuple[Mutant, Seen, float]:
        started = time.monotonic()
        with planted(mutant) as source:
            try:
                seen = self._seen(mutant, source)
            except TROUBLES as error:
                seen = Seen(GateRun(None), error=f"{type(error).__name__}: {error}")
        return mutant, seen, time.monotonic() - started

    def _flaky(self, killers: set[str]) -> set[str]:
        """Those of the checks that do not pass on a clean deployment."""
        specs = [s for s in self.campaign.policy.catalogue if s.id in killers]
        if not specs:
            return set()
        try:
            self._put(None, SOURCE_ROOT)
            bad = [f.check for part in _apart(specs) for f in _findings(self._look(part))]
        except TROUBLES:
            return killers
        return set(bad)

    def _put(self, mutant: Mutant | None, source: Path) -> bool:
        """The deployment anew, with this mutant; whether it started."""
        try:
            if mutant is not None and mutant.is_schema:
                self.bench.rebuild(source)
                self.bench.execute(mutant.as_applied)
            elif self._is_spoilt:
                self.bench.rebuild(SOURCE_ROOT)
                self.bench.renew(source)
            else:
                self.bench.renew(source)
        except TROUBLES:
            if mutant is None:
                raise
            return False
        finally:
            self._is_spoilt = mutant is not None and mutant.is_schema
        return True

    _is_spoilt: bool = False
    """The database is one of a mutant's migrations."""

    def _seen(self, mutant: Mutant, source: Path) -> Seen:
        seen = Seen(GateRun(None))
        known = self.campaign.equivalents.get(mutant.key)
        looks = [*self._looks(mutant), *([] if known or self.campaign.short else [None])]
        starts = self._put(mutant, source)
        for specs in looks:
            seen = self._asked(specs)
            if not seen.is_killed and not seen.error:
                continue
            if seen.killers or not starts:
                break
            self._put(mutant, source)  # nothing failed, and yet it is no promote: once more, on a fresh copy
            seen = self._asked(specs)
            if seen.is_killed or seen.error:
                break
        return replace(seen, starts=starts)

    def _looks(self, mutant: Mutant) -> Iterator[Sequence[CheckSpec] | None]:
        """What a mutant is shown to, one after another: SQL checks see what migrations made at once."""
        way = self.campaign.way
        specs = [s for s in self.campaign.policy.catalogue if way.sees(s)]
        drills = [s for s in specs if s.id.startswith("drill/")]
        if mutant.is_schema:
            yield [s for s in specs if s.id.startswith("sql/") and not s.id.startswith(MANIFEST)]
        near = nearest(mutant, drills, NEAR)
        ids = {s.id for s in near}
        near += [s for s in drills if s.id not in ids and s.id in {c for n in near for c in n.after}]
        yield near
        yield [s for s in drills if s not in near or any(s.id in d.after for d in drills)]
        if mutant.is_schema:
            yield [s for s in specs if s.id.startswith(MANIFEST)]

    def _asked(self, specs: Sequence[CheckSpec] | None) -> Seen:
        """What the checks say, or the whole gate; a failure counts where it is seen again."""
        run = self._gate() if specs is None else self._look(specs, "-x")
        failed = _failed(run)
        if run.verdict is None:
            return Seen(run, error=run.error)
        if not failed:
            return Seen(run)
        again = self._gate() if specs is None else self._look([s for s in specs if s.id == failed[0]])
        twice = tuple(c for c in failed if c in _failed(again))
        return Seen(run, twice) if twice else Seen(again, error="" if again.verdict else again.error)

    def _look(self, specs: Sequence[CheckSpec], *options: str) -> GateRun:
        way = self.campaign.way
        return self.looker.look(specs, way, *options).weighed(specs, way.policy(self.campaign.policy))

    def _gate(self) -> GateRun:
        out = self.campaign.out / "mutants" / str(self.number)
        return self.campaign.way.gate(self.bench, out, self.campaign.policy_options)


def _apart(specs: Sequence[CheckSpec]) -> list[list[CheckSpec]]:
    """Drills and SQL checks apart, as they cannot share a look; what others see needs the whole gate."""
    parts = ([s for s in specs if s.id.startswith(kind)] for kind in ("drill/", "sql/"))
    return [part for part in parts if part]


def _findings(run: GateRun) -> list[Finding]:
    return list(run.verdict.findings) if run.verdict else []


def _failed(run: GateRun) -> tuple[str, ...]:
    return tuple(f.check for f in _findings(run) if f.outcome == "fail")
