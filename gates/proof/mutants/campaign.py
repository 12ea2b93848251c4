"""Shows mutants to the gate: each alone to the checks that are nearest; those that are left, and what is said to be
equivalent, many in one deployment to the whole gate, and then each of them alone to what did not pass there.

A mutant is killed where the gate would not promote. A check that does not pass must not pass twice; what killed them
must pass on a clean deployment, once after every few. A look that saw nothing at all is made again on a fresh copy.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from gates.decision.rules import Policy
from gates.evidence import CheckSpec
from gates.proof.judgement import GateRun
from gates.proof.matrix.campaign import RunScope
from gates.proof.matrix.short import Looker
from gates.proof.mutants.mutant import Mutant, companies, planted, together
from gates.proof.trial import ProofPart, Trial
from gates.proof.workbench.bench import TROUBLES, OpenBench, ProofBench
from gates.proof.workbench.lanes import IsOver, share_out
from gates.stack.service import SOURCE_ROOT
from gates.verdict import Decision, Effect

ALLOWED = (Decision.HOLD.value, Decision.ROLLBACK.value)
NEAR, BLAMED = 8, 12
"""How many checks a mutant is shown to first; and to how many of those that saw its company."""
GROUP, COMPANY = 8, 12
"""How many mutants share a clean look at what killed them; how many are put into one deployment."""
PART = 120
"""How many drills share a look, which has a time limit."""
EQUIVALENT, HOLE = "equivalent: ", "hole: the gate promoted: "
DEAD = "it did not start; "
WORD = re.compile(r"[a-z]{3,}")
MANIFEST = "sql/manifest/"
"""These compare a schema with the shipped one, and come last: what only they see is missed if a wrong migration came
with a manifest made from it.
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """The result of a mutant. killers: the checks that failed twice; error: why it is unknown."""

    run: GateRun
    killers: tuple[str, ...] = ()
    starts: bool = True
    error: str = ""

    @property
    def is_killed(self) -> bool:
        return not self.error and not self.run.is_green

    @property
    def decision(self) -> str:
        return self.run.verdict.decision.value if self.run.verdict and not self.error else ""


@dataclass(frozen=True, slots=True)
class MutantCampaign:
    """What the campaign needs. equivalents: why a mutant may be promoted, by its key. done: called with each result, by
    the lanes. over: whether to begin nothing more.
    """

    open_bench: OpenBench
    policy: Policy
    policy_options: tuple[str, ...]
    out: Path
    way: RunScope
    equivalents: Mapping[str, str]
    lanes: int = 2
    short: bool = False
    """Whether to show none to the whole gate."""
    done: Callable[[Trial], None] = lambda _trial: None
    over: Callable[[], bool] = lambda: False

    def run(self, mutants: Sequence[Mutant]) -> None:
        """Show every mutant, on the lanes. Those of the schema come last: they spoil the database for the others."""
        ordered = sorted(mutants, key=lambda m: m.is_schema)
        known = [m for m in ordered if m.key in self.equivalents]
        new = [m for m in ordered if m.key not in self.equivalents]
        self._on_lanes([new[i : i + GROUP] for i in range(0, len(new), GROUP)], _Lane.group)
        self._on_lanes(companies(known, COMPANY), _Lane.company)

    def _on_lanes(self, groups: Sequence[Sequence[Mutant]], show: Callable[[_Lane, Sequence[Mutant]], None]) -> None:
        def work(number: int, waiting: Iterator[Sequence[Mutant]], over: IsOver) -> None:
            with ExitStack() as stack:
                bench = stack.enter_context(self.open_bench(self.way.kind))
                looker = Looker(bench, self.policy, self.out / "lanes" / f"mutants-{number}")
                stack.callback(looker.close)
                lane = _Lane(self, bench, looker, number, over)
                for group in waiting:
                    show(lane, group)
                lane.companies(1)

        share_out(self.lanes, groups, self.over, work)

    def judged(self, mutant: Mutant, seen: Seen, seconds: float) -> Trial:
        why, decision = self.equivalents.get(mutant.key, ""), seen.decision
        reason = seen.error or (seen.run.verdict.reason if seen.run.verdict else seen.run.error)
        if decision == Decision.PROMOTE.value:
            reason = f"{EQUIVALENT}{why}" if why else f"{HOLE}{reason}"
        elif seen.is_killed:
            reason = ("" if seen.starts else DEAD) + (", ".join(seen.killers[:3]) or f"held: {reason}")
            if why:
                reason = f"killed, and said to be equivalent ({why}): {reason}"
        ok = seen.is_killed != bool(why) and bool(decision)
        said, took = mutant.said, round(seconds, 1)
        return Trial(ProofPart.MUTANTS, mutant.id, said, ALLOWED, decision, ok, reason, took, seen.killers)


@dataclass
class _Lane:
    """One deployment, on which mutants are shown one after another."""

    campaign: MutantCampaign
    bench: ProofBench
    looker: Looker
    number: int
    over: Callable[[], bool]
    _is_spoilt: bool = field(default=False, init=False)
    """Whether the database was made by a mutant's migrations."""
    _usual: set[str] | None = field(default=None, init=False)
    """The checks that are not applicable on a clean deployment, once known."""
    _left: list[Mutant] = field(default_factory=list, init=False)
    """Survivors of the nearest checks that no other checks have seen."""

    def group(self, mutants: Sequence[Mutant]) -> None:
        """Show each to the nearest checks, and the survivors to all as soon as they fill a company. A proof that is
        ended early then leaves few half-known mutants.
        """
        self._left += self._each(mutants, self._nearest)
        self.companies(COMPANY)

    def companies(self, least: int) -> None:
        """Show the remaining ones in companies of at least so many."""
        while len(self._left) >= least:
            some, self._left = self._left[:COMPANY], self._left[COMPANY:]
            for one in companies(sorted(some, key=lambda m: m.is_schema), COMPANY):
                self.company(one)

    def company(self, mutants: Sequence[Mutant]) -> None:
        """Show these in one deployment. What is not seen there, nobody sees.

        Otherwise show each to the checks that failed, and the others in company again; in two halves if none of them is
        to blame, or if one may have hidden the others.
        """
        if self.over():
            return
        seen, seconds = self._timed(together(mutants), self._in_company)
        if len(mutants) == 1 and seen.is_killed:
            again, seconds = self._timed(mutants[0], self._in_company)
            seen = replace(again, killers=tuple(check for check in again.killers if check in seen.killers))
        if len(mutants) == 1 or (seen.decision and not seen.is_killed and not self._hides(seen.run)):
            for mutant in mutants:
                self.campaign.done(self.campaign.judged(mutant, seen, seconds / len(mutants)))
            return
        specs = [s for s in self.campaign.policy.catalogue if s.id in seen.killers[:BLAMED]]
        left = self._each(mutants, lambda _mutant: _apart(specs)) if specs else list(mutants)
        half = len(left) // 2 if len(left) == len(mutants) else 0
        for some in (left[:half], left[half:]):
            if some:
                self.company(some)

    def _hides(self, run: GateRun) -> bool:
        """Whether checks became not applicable that apply to a clean deployment: a mutant may switch them off."""
        exempt = _exempt(run)
        if exempt and self._usual is None:
            self._put(None, SOURCE_ROOT)
            self._usual = _exempt(self._gate())
        return not exempt <= (self._usual or set())

    def _each(
        self, mutants: Sequence[Mutant], looks: Callable[[Mutant], Sequence[Sequence[CheckSpec]]]
    ) -> list[Mutant]:
        """The survivors. Each is shown alone, then its killers to a clean deployment, once more if they fail there."""

        def alone(mutant: Mutant, source: Path) -> Seen:
            return self._alone(mutant, source, looks(mutant))

        found: list[tuple[Mutant, Seen, float]] = []
        for mutant in mutants:
            if self.over():
                break
            found.append((mutant, *self._timed(mutant, alone)))
        flaky = self._flaky({check for _, seen, _ in found for check in seen.killers})
        left = []
        for mutant, seen, seconds in found:
            if seen.killers and flaky.issuperset(seen.killers):
                seen, seconds = self._timed(mutant, alone)  # noqa: PLW2901  -- the second time counts
            if seen.is_killed or seen.error:
                self.campaign.done(self.campaign.judged(mutant, seen, seconds))
            else:
                left.append(mutant)
        return left

    def _timed(self, mutant: Mutant, show: Callable[[Mutant, Path], Seen]) -> tuple[Seen, float]:
        started = time.monotonic()
        with planted(mutant) as source:
            try:
                seen = show(mutant, source)
            except TROUBLES as error:
                seen = Seen(GateRun(None), error=f"{type(error).__name__}: {error}")
        return seen, time.monotonic() - started

    def _flaky(self, killers: set[str]) -> set[str]:
        """Those of the checks that do not pass on a clean deployment."""
        specs = [s for s in self.campaign.policy.catalogue if s.id in killers]
        if not specs:
            return set()
        try:
            self._put(None, SOURCE_ROOT)
            return {check for part in _apart(specs) for check in _unpassed(self._look(part))}
        except TROUBLES:
            return killers

    def _put(self, mutant: Mutant | None, source: Path) -> bool:
        """Restart the deployment with this mutant; returns whether it started."""
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

    def _alone(self, mutant: Mutant, source: Path, looks: Sequence[Sequence[CheckSpec]]) -> Seen:
        """The results of the checks. Those that saw nothing at all are repeated on a fresh copy."""
        seen, starts = Seen(GateRun(None)), self._put(mutant, source)
        for specs in looks:
            seen = self._asked(specs)
            if seen.is_killed and not seen.killers and starts:
                self._put(mutant, source)
                seen = self._asked(specs)
            if seen.is_killed or seen.error:
                break
        return replace(seen, starts=starts)

    def _in_company(self, mutant: Mutant, source: Path) -> Seen:
        """The result of the whole gate, or, without it, of all SQL checks and drills, a part at a time."""
        starts = self._put(mutant, source)
        runs = [self._look(part) for part in self._all(mutant)] if self.campaign.short else [self._gate()]
        killers = tuple(check for run in runs for check in _unpassed(run))
        worst = next((run for run in runs if not run.is_green), runs[-1])
        return Seen(worst, killers, starts, next((run.error for run in runs if not run.verdict), ""))

    def _nearest(self, mutant: Mutant) -> list[Sequence[CheckSpec]]:
        """The checks that a mutant is shown to first, in order: SQL checks see migrations at once."""
        specs = self._seen_by_the_way()
        drills = [s for s in specs if s.id.startswith("drill/")]
        near = nearest(mutant, drills, NEAR)
        ids = {s.id for s in near}
        near += [s for s in drills if s.id not in ids and s.id in {c for n in near for c in n.after}]
        return [part for part in (_of_the_schema(specs) if mutant.is_schema else [], near) if part]

    def _all(self, mutant: Mutant) -> list[list[CheckSpec]]:
        """All drills, and all schema checks; the manifest last."""
        specs = self._seen_by_the_way()
        drills = [s for s in specs if s.id.startswith("drill/")]
        parts = [drills[i : i + PART] for i in range(0, len(drills), PART)]
        manifest = [s for s in specs if s.id.startswith(MANIFEST)]
        return [part for part in (_of_the_schema(specs), *parts, manifest) if part] if mutant.is_schema else parts

    def _seen_by_the_way(self) -> list[CheckSpec]:
        return [s for s in self.campaign.policy.catalogue if self.campaign.way.sees(s)]

    def _asked(self, specs: Sequence[CheckSpec]) -> Seen:
        """The results of the checks. The first failure is repeated; if it then passes, what it blocked is run."""
        left = list(specs)
        while True:
            run = self._look(left, "-x")
            if run.verdict is None:
                return Seen(run, error=run.error)
            odd, asked = _unpassed(run)[:1], {check for check, *_ in run.costs}
            if odd:
                again = self._look([s for s in left if s.id in odd])
                if again.verdict is None or not again.is_green:
                    return Seen(again, odd, error="" if again.verdict else again.error)
                run = again
            left = [s for s in left if s.id not in asked]
            if not left or not asked:
                return Seen(run)

    def _look(self, specs: Sequence[CheckSpec], *options: str) -> GateRun:
        way = self.campaign.way
        return self.looker.look(specs, way, *options).weighed(specs, way.policy(self.campaign.policy))

    def _gate(self) -> GateRun:
        out = self.campaign.out / "mutants" / str(self.number)
        return self.campaign.way.gate(self.bench, out, self.campaign.policy_options)


def _apart(specs: Sequence[CheckSpec]) -> list[list[CheckSpec]]:
    """Drills and SQL checks separately, as they cannot share a look, the manifest last. Others need the whole gate."""
    parts = (
        _of_the_schema(specs),
        [s for s in specs if s.id.startswith("drill/")],
        [s for s in specs if s.id.startswith(MANIFEST)],
    )
    return [part for part in parts if part]


def _exempt(run: GateRun) -> set[str]:
    return {one.check for one in run.verdict.not_applicable} if run.verdict else set()


def _of_the_schema(specs: Sequence[CheckSpec]) -> list[CheckSpec]:
    return [s for s in specs if s.id.startswith("sql/") and not s.id.startswith(MANIFEST)]


def _unpassed(run: GateRun) -> tuple[str, ...]:
    """The checks that ran, and for which the gate would not promote."""
    asked = {check for check, *_ in run.costs}
    findings = run.verdict.findings if run.verdict else ()
    return tuple(f.check for f in findings if f.check in asked and f.effect in {Effect.HOLD, Effect.ROLLBACK})


def nearest(mutant: Mutant, specs: Sequence[CheckSpec], count: int) -> list[CheckSpec]:
    """The checks that most likely see a mutant, by the words of its file and line; the rarest words weigh most."""
    of_specs = [_words(f"{s.id} {s.claim}") for s in specs]
    known = Counter(word for words in of_specs for word in words)
    said = _words(mutant.about)

    def weight(i: int) -> float:
        return sum(math.log(len(specs) / known[word]) for word in said & of_specs[i])

    order = sorted(range(len(specs)), key=lambda i: (-weight(i), specs[i].id))
    return [specs[i] for i in order[:count]]


def _words(text: str) -> set[str]:
    return {word.rstrip("s") for word in WORD.findall(text.lower())}
