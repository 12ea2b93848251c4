"""The sequence of a proof: the suites one after another; each cell and trial is written at once."""

import dataclasses
import json
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar

from gates import record
from gates.errors import UsageError
from gates.evidence import CheckSpec, TargetKind, stamp
from gates.proof.degenerate import SERVERS, never_unpassed
from gates.proof.fault import ListedFault
from gates.proof.healthy.variants import VARIANTS
from gates.proof.hostile import suite as hostile
from gates.proof.judgement import Cell, FaultFacts, GateRun, Status
from gates.proof.kept import KeptTrials
from gates.proof.matrix.campaign import Campaign, RunScope
from gates.proof.matrix.cells import Matrix
from gates.proof.matrix.pairs import DRAWS, as_trial, at_once, each
from gates.proof.matrix.short import ShortWay
from gates.proof.measures import Cost, cheaper
from gates.proof.mutants.campaign import MutantCampaign
from gates.proof.mutants.mutant import equivalents
from gates.proof.proof import Proof, spent_before
from gates.proof.reports import stryker, summary
from gates.proof.reports.page import page
from gates.proof.request import ProofRequest, chosen, chosen_mutants, chosen_pairs
from gates.proof.selfsuite import suite as selfsuite
from gates.proof.trial import ProofPart, Trial
from gates.proof.trials import Trials
from gates.proof.workbench import programs
from gates.proof.workbench.bench import ProofBench, bench
from gates.reports.citation import source_digest
from gates.stack.plan import StackOptions, default_release
from gates.stages.suite import ROOT

MATRIX, PAGE, SUMMARY, LAST = "matrix.json", "proof.html", "proof.md", "proof.json"
QUICK_EVERY = 20
Asked = TypeVar("Asked")
LANES_A_FAULT, LANES_A_GATE = 2, 3
"""How many lanes of the short way make one of the whole gate: on a fault, which mostly waits, and on a healthy
deployment, which uses a core.
"""
KEEP_EVERY_S = 20.0
"""The least time between two updates of the reports: they cost more than a fault does."""


class Prover:
    """Collects what the suites find, and keeps it on disk."""

    def __init__(self, request: ProofRequest) -> None:
        self._request = request
        self._started = time.monotonic()
        self._before_s = 0.0
        self._matrix: Matrix | None = None
        self._keeping, self._kept_at = threading.Lock(), float("-inf")
        self._costs: dict[str, Cost] = {}
        self._source = source_digest()
        self._key = {"source": self._source, "policy": request.policy.proof_digest, "target": request.kind.value}
        self._key |= {one.id: one.digest for one in request.mutants}
        request.out.mkdir(parents=True, exist_ok=True)
        if request.resume:
            self._before_s, self._costs = spent_before(request.out / LAST, self._source)
        self._kept = KeptTrials(request.out, self._key, resume=request.resume)
        self._apart: dict[str, str] = {}
        """Pairs that could not be in together, and why: others were drawn."""
        self._due: list[str] = []
        """Trials of suites that may be ended before all of them have begun."""

    def run(self) -> Proof:
        """Run everything that was asked for. Raise CannotWork without a catalogue, UsageError if nothing matches."""
        request = self._request
        for name in (MATRIX, PAGE, SUMMARY, LAST):
            (request.out / name).unlink(missing_ok=True)
        faults = chosen(programs.list_faults(request.environ), request) if ProofPart.FAULTS in request.suites else ()
        if faults:
            self._matrix = Matrix(request.out, faults, self._key, resume=request.resume)
        try:
            if self._matrix:
                self._run_faults(self._matrix)
            if ProofPart.PAIRS in request.suites:
                self._run_pairs()
            if ProofPart.MUTANTS in request.suites:
                self._run_mutants()
            self._run_trials()
        finally:
            proof = self.keep()
        if not faults and not self._kept.all and not self._due:
            alone = ". Leave --short out: some are for the whole gate alone" if request.short else ""
            found = f"--only {', '.join(request.only)} matches nothing"
            raise UsageError(f"{found}; allowed: ids of `gate prove --list`{alone}")
        return proof

    def _run_faults(self, matrix: Matrix) -> None:
        request = self._request
        if request.quick or request.short:
            self._short_way().run(matrix.unseen(request.policy.catalogue))
        if not request.short and not self._is_over():
            self._show_the_gate(matrix)

    def _show_the_gate(self, matrix: Matrix) -> None:
        """Show the whole gate what the short way saw killed, several at once. Those that are not seen there are shown
        so once more, without the ones that hid them and were seen. The rest is shown alone.
        """
        request, campaign = self._request, self._campaign()
        due = matrix.for_the_gate(request.seed, request.share) if request.quick else matrix.left
        if request.quick:
            seen = set[str]()

            def done(cell: Cell) -> None:
                if cell.as_declared:
                    seen.add(cell.fault.id)
                    self._cell_done(cell)

            for _ in range(2):
                sure = [f for f in due if not f.is_noop and not matrix.is_odd(f)]
                several = at_once(sure, request.policy.catalogue, request.kind)
                dataclasses.replace(campaign, judged=each, done=done).run(several)
                due = [f for f in due if f.id not in seen]
        campaign.run(due)

    def _run_pairs(self) -> None:
        """As many pairs as were asked for: others replace those that cannot be in together, unless they were named."""
        for left in reversed(range(DRAWS)):
            asked = {f.id: f for f in chosen_pairs(self._request, self._apart)}
            apart = self._show_pairs(self._not_right(ProofPart.PAIRS, asked))
            if not apart or not left or self._request.only or self._is_over():
                return
            self._apart |= apart
            self._due = [name for name in self._due if name.partition("/")[2] not in apart]

    def _show_pairs(self, due: Sequence[ListedFault]) -> dict[str, str]:
        """Show each pair by the short way, and to the whole gate if it did not see it and the gate is asked for.
        Returns why some could not be in together.
        """
        unseen: list[ListedFault] = []
        apart: dict[str, str] = {}

        def done(cell: Cell, *, is_last: bool = self._request.short) -> None:
            if cell.status is Status.NOT_INSTALLED:
                apart[cell.fault.id] = cell.reason
            elif cell.as_declared or is_last:
                self._trial_done(as_trial(cell))
            else:
                unseen.append(cell.fault)

        dataclasses.replace(self._short_way(), done=done).run(due)
        dataclasses.replace(self._campaign(), done=partial(done, is_last=True)).run(unseen)
        return apart

    def _run_mutants(self) -> None:
        request = self._request
        due = self._not_right(ProofPart.MUTANTS, {one.id: one for one in chosen_mutants(request)})
        MutantCampaign(
            open_bench=self._open,
            policy=request.policy,
            policy_options=request.policy_options,
            out=request.out,
            way=RunScope(request.kind),
            equivalents=equivalents(),
            lanes=request.lanes,
            short=request.short,
            done=self._trial_done,
            over=self._is_over,
        ).run(due)

    def _not_right(self, suite: ProofPart, asked: Mapping[str, Asked]) -> list[Asked]:
        """Those of a suite, by name, that no earlier run saw come out right; all of them are required."""
        self._due += [name for name in (f"{suite}/{one}" for one in asked) if name not in self._due]
        return [one for name, one in asked.items() if not self._kept.is_right(f"{suite}/{name}")]

    def _is_over(self) -> bool:
        return bool(self._request.minutes) and time.monotonic() - self._started > self._request.minutes * 60

    def _run_trials(self) -> None:
        suites = self._request.suites
        trials = self._make_trials()
        if ProofPart.HEALTHY in suites:
            healthy = []
            for one in VARIANTS:
                name = f"{ProofPart.HEALTHY}/{one.name}"
                if why := one.lacking():
                    self._request.say(f"- {name}: left out, {why}")
                elif self._request.wants(name):
                    self._due.append(name)
                    healthy.append(one)
            trials.healthy_targets(healthy)
        if ProofPart.DEGENERATE in suites:
            trials.degenerate_targets()
        if ProofPart.SELF in suites:
            request = self._request
            selfsuite.SelfSuite(self._open, request.out, self._wants, self._trial_done, request.policy_options).run()
        if ProofPart.HOSTILE in suites:
            hostile.HostileSuite(
                self._open, self._request.out, self._wants, self._trial_done, self._request.sample
            ).run()

    def _make_trials(self) -> Trials:
        request = self._request
        return Trials(
            open_bench=self._open,
            out=request.out,
            wants=self._wants,
            done=self._trial_done,
            policy=request.policy_options,
            healthy_runs=request.healthy_runs,
            lanes=max(1, request.lanes // LANES_A_GATE),
            over=self._is_over,
        )

    def _wants(self, name: str) -> bool:
        """Whether a trial was asked for and is not known yet; a later run on a variant has the variant's name."""
        return self._request.wants(name.partition("@")[0]) and name not in self._kept

    def _trial_done(self, one: Trial) -> None:
        with self._keeping:
            self._kept.add(one)
            self._keep_so_far()
        mark = "✓" if one.ok else "✗"
        self._request.say(f"{mark} {one.id:<34} {one.decision or 'none':<18} {one.seconds:5.0f} s  {one.reason[:90]}")

    def _keep_so_far(self) -> None:
        if time.monotonic() - self._kept_at > KEEP_EVERY_S:
            self.keep()
            self._kept_at = time.monotonic()

    def keep(self) -> Proof:
        """Write what is known so far."""
        proof, request = self._proof(), self._request
        report = stryker.matrix(proof, self._matrix.pending if self._matrix else (), source_of)
        texts = {
            MATRIX: json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False) + "\n",
            PAGE: page(proof),
            SUMMARY: summary.markdown(proof),
            LAST: proof.dump(),
        }
        for name, text in texts.items():
            record.write(request.out / name, text)
        return proof

    def _proof(self) -> Proof:
        request, matrix = self._request, self._matrix
        seen = applicable(request.policy.catalogue, request.kind)
        return Proof(
            finished_at=stamp(request.now()),
            digest=request.policy.proof_digest,
            policy=request.policy.proof_parts,
            target=request.kind.value,
            gate=request.gate,
            cells=matrix.cells if matrix else (),
            compared=matrix.compared if matrix else (),
            trials=self._kept.all,
            pending=(
                *((f.id for f in matrix.pending) if matrix else ()),
                *(name for name in self._due if name not in self._kept),
            ),
            costs=self._costs,
            drawn_anew=self._apart,
            unpassed_nowhere=unpassed_nowhere(self._kept.all, [s.id for s in seen]),
            catalogue=seen,
            source=self._source,
            changed=source_digest() != self._source,
            whole=request.whole and not (matrix and matrix.pending),
            quick=request.quick or request.short,
            seconds=self._before_s + time.monotonic() - self._started,
        )

    def _short_way(self) -> ShortWay:
        request = self._request
        hooks = self._cell_done, self._clean_done, self._is_over
        return ShortWay(
            self._open, request.policy, request.out, request.policy_options, request.kind, request.lanes, *hooks
        )

    def _campaign(self) -> Campaign:
        request = self._request
        return Campaign(
            open_bench=self._open,
            catalogue=request.policy.catalogue,
            out=request.out,
            wanted=request.kind,
            every=QUICK_EVERY if request.quick else 1,
            lanes=max(1, request.lanes // LANES_A_FAULT),
            over=self._is_over,
            policy=request.policy_options,
            done=self._cell_done,
            clean_done=self._clean_done,
            examined=self._examined,
        )

    def _cell_done(self, cell: Cell) -> None:
        if self._matrix is not None:
            self._matrix.add(cell)
        with self._keeping:
            self._keep_so_far()
        mark = "✓" if cell.as_declared else "✗"
        self._request.say(
            f"{mark} {cell.fault.id:<34} {cell.status.value:<18} {cell.seconds:5.0f} s  {summary.why(cell)[:90]}"
        )

    def _examined(self, fault: ListedFault, facts: FaultFacts) -> None:
        said = facts.error or facts.refused or (facts.run.said if facts.run else "not run")
        self._request.say(f"· {fault.id:<53} {facts.seconds:5.0f} s  {said[:90]}")

    def _clean_done(self, run: GateRun) -> None:
        if run.is_green:
            self._costs = cheaper(self._costs, {check: Cost(seconds, seen) for check, seconds, seen in run.costs})
        self._request.say(f"{'✓' if run.is_green else '?'} {'clean run':<53} {run.seconds:5.0f} s  {run.said[:90]}")

    def _open(self, kind: TargetKind, **options: Any) -> AbstractContextManager[ProofBench]:
        return bench(StackOptions(release=default_release(), **options), self._request.environ, kind)


def applicable(catalogue: Iterable[CheckSpec], kind: TargetKind) -> tuple[CheckSpec, ...]:
    """The checks of a run on such a target, without --deep."""
    return tuple(s for s in catalogue if kind.allows(s.where, disruptive=True) and not s.deep)


def unpassed_nowhere(trials: Sequence[Trial], checks: Sequence[str]) -> tuple[str, ...]:
    """The HTTP checks that passed on every degenerate server; none before all of them were tried."""
    seen = {t.name: t.unpassed for t in trials if t.suite is ProofPart.DEGENERATE}
    servers = [s.name for s in SERVERS]
    return never_unpassed(checks, [seen[n] for n in servers]) if set(servers) <= set(seen) else ()


def source_of(path: str) -> str:
    """The text of a file of the package faults, empty if it cannot be read."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except OSError:
        return ""
