"""A whole proof: the cells of the matrix, the trials, the conclusions; and what an earlier part of it cost."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gates.evidence import CheckSpec, JsonValue
from gates.proof.judgement import Cell, Status
from gates.proof.measures import CANARY_S, Canary, Cost, Minimal, Worth, canary, smallest_set, worth
from gates.proof.trial import ProofPart, Trial
from gates.reports.citation import FORMAT, rule_of_three
from gates.verdict import Decision

EXIT_AS_DECLARED, EXIT_NOT_PROVED, EXIT_HARMFUL = 0, 10, 20
MOST_REASON = 110


@dataclass(frozen=True, slots=True)
class Proof:
    """What was proved. `whole`: every fault was asked for. `digest`: of the policy, without release. `quick`: most by
    the short way. `compared`: the short way and the whole gate on the same fault.
    """

    finished_at: str
    digest: str
    target: str
    gate: str
    cells: tuple[Cell, ...] = ()
    compared: tuple[tuple[Cell, Cell], ...] = ()
    trials: tuple[Trial, ...] = ()
    pending: tuple[str, ...] = ()
    drawn_anew: Mapping[str, str] = field(default_factory=dict)
    """Pairs that could not be in together, and why: others replaced them."""
    unpassed_nowhere: tuple[str, ...] = ()
    """HTTP checks that passed on every degenerate server: they would pass on nothing at all."""
    costs: dict[str, Cost] = field(default_factory=dict)
    catalogue: tuple[CheckSpec, ...] = ()
    """The checks of this target, without --deep."""
    policy: Mapping[str, str] = field(default_factory=dict)
    """The parts of the policy, by which later runs tell how theirs differs."""
    source: str = ""
    changed: bool = False
    """Whether the sources changed during the proof."""
    whole: bool = False
    quick: bool = False
    seconds: float = 0.0

    @property
    def faults(self) -> tuple[Cell, ...]:
        """The cells of the faults, without the no-ops."""
        return tuple(c for c in self.cells if not c.fault.is_noop)

    @property
    def killed(self) -> int:
        return sum(c.status is Status.KILLED for c in self.cells)

    @property
    def invalid(self) -> str:
        """Why the whole matrix is invalid; empty if it is not."""
        if self.changed:
            return "the sources of the gate changed while it was proved"
        noops = [c for c in self.cells if c.fault.is_noop]
        if self.faults and not noops:
            return "no no-op was among the faults: nobody knows whether the gate would have promoted nothing wrong"
        bad = [c for c in noops if not c.as_declared]
        return f"the no-op {bad[0].fault.id} did not survive: {bad[0].status}: {bad[0].reason}" if bad else ""

    @property
    def differing(self) -> tuple[Cell, ...]:
        """The short way's cells of faults that it saw killed and the whole gate did not."""
        return tuple(short for short, whole in self.compared if short.as_declared and not whole.as_declared)

    @property
    def by_the_gate(self) -> tuple[Cell, ...]:
        """Those that the whole gate was shown."""
        return tuple(c for c in self.faults if not c.short)

    @property
    def named_late(self) -> tuple[Cell, ...]:
        """Those that only the whole gate killed, naming something else first."""
        alone = (c for c in self.by_the_gate if c.status is Status.KILLED and not c.beside)
        return tuple(c for c in alone if c.first not in c.killers)

    @property
    def idle(self) -> tuple[str, ...]:
        """Checks of this target that killed no fault."""
        killers = {check for c in self.cells for check in c.killers if c.status is Status.KILLED}
        return tuple(s.id for s in self.catalogue if s.id not in killers) if self.cells else ()

    @property
    def undeclared(self) -> tuple[str, ...]:
        """The idle checks that no fault declares. Any other did not look, or another check saw the fault first."""
        return tuple(check for check in self.idle if not any(c.fault.declares(check) for c in self.faults))

    @property
    def single(self) -> tuple[Cell, ...]:
        """Faults killed by one check only."""
        return tuple(c for c in self.faults if c.status is Status.KILLED and len(c.killers) == 1)

    @property
    def minimal(self) -> Minimal:
        """The smallest set of checks that kills every killed production fault, and its cost."""
        return smallest_set(self._production, self.costs)

    @property
    def canary(self) -> Canary:
        """The drills of a round of the watch."""
        return canary(self._production, self.costs, self.catalogue, CANARY_S)

    @property
    def worth(self) -> tuple[Worth, ...]:
        """The value of each check, by the faults that were killed."""
        return worth([c.killers for c in self.faults if c.status is Status.KILLED], self.costs)

    @property
    def areas(self) -> tuple[tuple[str, int, int, str], ...]:
        """The faults by the first word of their ids: the word; how many there are, are killed, the canary gives up."""
        words = Counter(c.fault.id.partition("/")[0] for c in self.faults)
        killed = Counter(c.fault.id.partition("/")[0] for c in self.faults if c.status is Status.KILLED)
        given_up = sorted(self.canary.given_up)
        names = {word: [f.removeprefix(f"{word}/") for f in given_up if f.startswith(f"{word}/")] for word in words}
        return tuple((word, count, killed[word], ", ".join(names[word])) for word, count in sorted(words.items()))

    @property
    def _production(self) -> dict[str, tuple[str, ...]]:
        """The killers of each fault that can occur in production and was killed."""
        return {c.fault.id: c.killers for c in self.faults if c.status is Status.KILLED and c.fault.production}

    def of(self, suite: ProofPart) -> tuple[Trial, ...]:
        return tuple(t for t in self.trials if t.suite is suite)

    @property
    def healthy_runs(self) -> int:
        return len([t for t in self.of(ProofPart.HEALTHY) if t.decision])

    @property
    def rollbacks(self) -> int:
        """Healthy deployments that were rolled back."""
        return sum(t.decision == "rollback" for t in self.of(ProofPart.HEALTHY))

    @property
    def bound(self) -> str:
        """The upper bound of their true rate, with 95 % confidence, if no healthy run was rolled back."""
        return rule_of_three(self.healthy_runs) if self.healthy_runs and not self.rollbacks else ""

    @property
    def exit_code(self) -> int:
        """0 all as declared; 20 the proof is invalid or the gate did harm; 10 any other deviation."""
        if self.invalid or any(t.harmful for t in self.trials):
            return EXIT_HARMFUL
        wrong = not all(c.as_declared for c in self.cells) or not all(t.ok for t in self.trials)
        return EXIT_NOT_PROVED if wrong or self.pending or self.unpassed_nowhere else EXIT_AS_DECLARED

    def summary(self) -> dict[str, JsonValue]:
        """What later runs cite: the contents of proof.json."""
        return {
            "format": FORMAT,
            "proof_digest": self.digest,
            "policy": dict(self.policy),
            "proved_at": self.finished_at,
            "target": self.target,
            "gate": self.gate,
            "source": self.source,
            "whole": self.whole,
            "quick": self.quick,
            "invalid": self.invalid,
            "faults": len(self.faults),
            "killed": self.killed,
            "not_killed": [c.fault.id for c in self.faults if c.status is not Status.KILLED],
            "cells": {k: v for k, v in sorted(Counter(c.status.value for c in self.faults).items())},  # noqa: C416
            "by_the_whole_gate": len(self.by_the_gate),
            "several_at_once": sum(bool(c.beside) for c in self.by_the_gate),
            "named_late": {c.fault.id: c.first for c in self.named_late},
            "by_both_ways": len(self.compared),
            "ways_differ": [c.fault.id for c in self.differing],
            "trials": {suite.value: self._suite(suite) for suite in ProofPart if self.of(suite)},
            "exit_code": self.exit_code,
            "canary": asdict(self.canary),
            "seconds": round(self.seconds, 1),
        }

    def _suite(self, suite: ProofPart) -> JsonValue:
        """One suite: its date, code and policy, and its numbers. `run` counts the trials with a decision."""
        made = self.of(suite)
        held = {t.name: t.reason[:MOST_REASON] for t in made if t.decision == Decision.HOLD.value}
        return {
            "proved_at": self.finished_at,
            "source": self.source,
            "proof_digest": self.digest,
            "run": sum(bool(t.decision) for t in made),
            "right": sum(t.ok for t in made),
            "decisions": {k: v for k, v in sorted(Counter(t.decision or "none" for t in made).items())},  # noqa: C416
            "wrong": [t.name for t in made if not t.ok],
            "held": dict(held) if suite is ProofPart.HEALTHY else {},
            "drawn_anew": {k: v[:MOST_REASON] for k, v in self.drawn_anew.items()} if suite is ProofPart.PAIRS else {},
        }

    def dump(self) -> str:
        """The text of proof.json: the summary, and the costs, with which the proof can go on."""
        costs = {check: (cost.seconds, cost.observed) for check, cost in sorted(self.costs.items())}
        return json.dumps({**self.summary(), "costs": costs}, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def spent_before(path: Path, source: str) -> tuple[float, dict[str, Cost]]:
    """The duration of the proof in this file, and the costs of its checks, which a continued proof adds to. Nothing if
    it is of other code, or unreadable.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["source"] != source:
            return 0.0, {}
        costs = {check: Cost(float(seconds), int(seen)) for check, (seconds, seen) in found["costs"].items()}
        return float(found["seconds"]), costs
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return 0.0, {}


def names(cells: Sequence[Cell]) -> str:
    """Their ids, as a list in a sentence."""
    return ", ".join(c.fault.id for c in cells)
