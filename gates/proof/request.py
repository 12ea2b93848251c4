"""The request of a proof: its options, and what they select from the catalogue and the suites."""

import datetime as dt
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gates.decision.rules import Policy
from gates.evidence import TargetKind
from gates.proof.degenerate import SERVERS, TWINS
from gates.proof.fault import ListedFault, decided
from gates.proof.healthy.variants import VARIANTS
from gates.proof.hostile import suite as hostile
from gates.proof.matrix.cells import draw
from gates.proof.matrix.pairs import PAIRS, pairs
from gates.proof.matrix.short import is_short
from gates.proof.mutants.mutant import MUTANTS, Mutant, drawn, mutants
from gates.proof.selfsuite import suite as selfsuite
from gates.proof.trial import NOT_PROMOTED, ProofPart
from gates.proof.trials import NEVER_ROLLED_BACK
from gates.proof.workbench import programs
from gates.text.patterns import matches

LANES = 6
"""In parallel on two cores: most of a fault's short way is waiting."""


@dataclass(frozen=True, slots=True)
class ProofRequest:
    """What to prove.

    `only`: globs of ids of faults and trials. `sample`: the most faults, and hostile trials, drawn by `seed` if there
    is one. `quick`: faults by the short way, and one in `share` by the whole gate. `short`: only by the short way.
    `healthy_runs`: runs on healthy variants (0: one on each). `mutants`: hand-written ones, shown instead of drawn
    ones. `lanes`: deployments in parallel, half of them for loads and the whole gate, a third for healthy ones.
    `minutes`: begin nothing after so many (0: no limit). `policy`: the policy of the gate, read, and as options. `say`
    takes one line of messages.
    """

    out: Path
    policy: Policy
    policy_options: tuple[str, ...] = ()
    suites: tuple[ProofPart, ...] = tuple(ProofPart)
    only: tuple[str, ...] = ()
    quick: bool = False
    short: bool = False
    resume: bool = False
    minutes: int = 0
    lanes: int = LANES
    share: int = 10
    sample: int = 0
    healthy_runs: int = 0
    mutants: tuple[Mutant, ...] = ()
    seed: str = ""
    kind: TargetKind = TargetKind.STAGING
    gate: str = ""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    say: Callable[[str], None] = lambda _text: None
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)

    def wants(self, name: str) -> bool:
        return not self.only or matches(name, self.only)

    @property
    def whole(self) -> bool:
        """Whether every fault was asked for; missing trials show in their number."""
        return not self.only and not self.sample and not self.short and ProofPart.FAULTS in self.suites

    @property
    def is_kept(self) -> bool:
        """Whether later runs may cite the result: it has either all faults or none."""
        return self.whole or (not self.only and ProofPart.FAULTS not in self.suites)


def chosen(faults: Sequence[ListedFault], request: ProofRequest) -> tuple[ListedFault, ...]:
    """The faults that are selected, by their ids or by the checks that must catch them. The no-ops precede them. In
    production only those that can occur there, each with the decision that is due. A sample is drawn by the seed, or
    spread evenly.
    """
    checks = [s.id for s in request.policy.catalogue if request.only and request.wants(s.id)]
    wanted = [
        f
        for f in faults
        if request.wants(f.id) or request.wants(f"{ProofPart.FAULTS}/{f.id}") or any(map(f.declares, checks))
    ]
    if request.kind is TargetKind.PRODUCTION:
        wanted = [f for f in wanted if f.production]
    if request.short:
        wanted = [f for f in wanted if f.is_noop or is_short(f, request.policy.catalogue)]
    noops = [f for f in faults if f.is_noop] if wanted else []
    wanted = [f for f in wanted if not f.is_noop]
    count = min(request.sample or len(wanted), len(wanted))
    spread = (wanted[i * len(wanted) // count] for i in range(count))
    sample = (*noops, *(draw(wanted, count, request.seed) if request.seed else spread))
    return tuple(decided(fault, request.policy.catalogue) for fault in sample)


def chosen_pairs(request: ProofRequest, without: Container[str] = ()) -> list[ListedFault]:
    """The selected pairs, with replacements for those in `without`."""
    in_production = request.kind is TargetKind.PRODUCTION
    known = [f for f in programs.list_faults(request.environ) if f.production or not in_production]
    faults = [decided(f, request.policy.catalogue) for f in known]
    made = pairs(faults, request.policy.catalogue, request.kind, request.sample or PAIRS, request.seed, without)
    return [f for f in made if request.wants(f"{ProofPart.PAIRS}/{f.id}")]


def chosen_mutants(request: ProofRequest) -> list[Mutant]:
    """The selected mutants: those of a file, or so many of all, drawn by the seed."""
    known = request.mutants or mutants()
    wanted = [one for one in known if request.wants(f"{ProofPart.MUTANTS}/{one.id}")]
    if request.mutants and not request.sample:
        return wanted
    return drawn(wanted, request.sample or MUTANTS, request.seed)


def listed(request: ProofRequest) -> list[tuple[str, str, str]]:
    """Everything that would be examined: id, right decisions, description."""
    faults = programs.list_faults(request.environ) if ProofPart.FAULTS in request.suites else ()
    rows = [(f.id, str(f.decision), f.breaks) for f in (chosen(faults, request) if faults else ())]
    trials: list[tuple[ProofPart, str, Sequence[str], str]] = []
    if ProofPart.PAIRS in request.suites:
        trials += [(ProofPart.PAIRS, f.id, NOT_PROMOTED, f.breaks) for f in chosen_pairs(request)]
    if ProofPart.MUTANTS in request.suites:
        trials += [(ProofPart.MUTANTS, m.id, NOT_PROMOTED, m.said) for m in chosen_mutants(request)]
    trials += [(ProofPart.HEALTHY, v.name, NEVER_ROLLED_BACK, v.said) for v in VARIANTS]
    trials += [(ProofPart.DEGENERATE, s.name, NOT_PROMOTED, s.said) for s in SERVERS]
    trials += [(ProofPart.DEGENERATE, t.name, NOT_PROMOTED, t.said) for t in TWINS]
    trials += [(ProofPart.SELF, *one) for one in selfsuite.names()]
    trials += [(ProofPart.HOSTILE, *one) for one in hostile.names()]
    rows += [
        (f"{suite}/{name}", " or ".join(allowed), said)
        for suite, name, allowed, said in trials
        if suite in request.suites and request.wants(f"{suite}/{name}")
    ]
    return rows
