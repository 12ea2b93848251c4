"""Several faults at once. In a pair each could hide the other: the deployment must not be promoted, and one of them
must be named. If the whole gate is shown several, each must be seen, or it is shown again.
"""

import hashlib
from collections.abc import Container, Sequence
from dataclasses import replace
from itertools import combinations

from gates.evidence import CheckSpec, TargetKind
from gates.proof.fault import Kind, ListedFault, together
from gates.proof.judgement import Cell, FaultFacts, judge
from gates.proof.matrix.campaign import scope_of
from gates.proof.matrix.short import is_loaded, is_short
from gates.proof.trial import NOT_PROMOTED, ProofPart, Trial
from gates.verdict import Decision

PAIRS = 200
AT_ONCE = 6
"""The most faults in one run of the whole gate."""
GRAVITY = (Decision.PROMOTE, Decision.HOLD, Decision.ROLLBACK)
DRAWS = 3
"""The most draws of pairs: those that cannot be in together are replaced by the next ones of the same draw."""


def pairs(
    faults: Sequence[ListedFault],
    catalogue: Sequence[CheckSpec],
    wanted: TargetKind,
    count: int,
    seed: str,
    without: Container[str] = (),
) -> list[ListedFault]:
    """So many pairs, drawn by the seed, of faults that the short way can show without a load in the same run.

    Half of them are of one area, where one fault most likely hides the other, half of two. Those in `without` are
    replaced by the next ones.
    """
    own = {f.id: [s for s in catalogue if f.declares(s.id)] for f in faults}
    able = [f for f in faults if not f.is_noop and is_short(f, own[f.id]) and not is_loaded(f, own[f.id])]
    scopes = {f.id: scope_of(f, own[f.id], wanted) for f in able}
    areas = {f.id: {s.id.split("/")[1] for s in own[f.id]} for f in able}
    alike = ((a, b) for a, b in combinations(able, 2) if scopes[a.id] == scopes[b.id])
    fit = [(a, b) for a, b in alike if not (without and together(a, b).id in without)]
    ordered = sorted(fit, key=lambda p: hashlib.sha256(f"{seed} {p[0].id} {p[1].id}".encode()).digest())
    near = [p for p in ordered if areas[p[0].id] & areas[p[1].id]][: count // 2]
    far = [p for p in ordered if not areas[p[0].id] & areas[p[1].id]][: count - len(near)]
    return [together(*both) for both in (*near, *far)]


def at_once(faults: Sequence[ListedFault], catalogue: Sequence[CheckSpec], wanted: TargetKind) -> list[ListedFault]:
    """Groups of faults, of different areas if possible; those that only --deep sees are grouped separately. Faults that
    end or stop a program, or slow the load, are excluded: they hide all others.
    """
    ways: dict[bool, list[ListedFault]] = {}
    for one in sorted(faults, key=lambda f: f.checks):
        if one.kind is not Kind.PROCESS and not is_loaded(one, catalogue):
            ways.setdefault(scope_of(one, catalogue, wanted).deep, []).append(one)
    made = []
    for alike in ways.values():
        runs = -(-len(alike) // AT_ONCE)
        made += [together(*alike[n::runs]) for n in range(runs)]
    return made


def each(several: ListedFault, facts: FaultFacts) -> list[Cell]:
    """The cells of faults that were in at once. The required decision is the gravest of theirs."""
    due = max((f.decision for f in several.each if f.decision), key=GRAVITY.index, default=None)
    beside = len(several.each) - 1
    cells = [judge(replace(one, decision=due), facts) for one in several.each]
    own = [replace(cell, fault=one, beside=beside) for cell, one in zip(cells, several.each, strict=True)]
    return [replace(cell, first="") for cell in own] if beside else own


def as_trial(cell: Cell) -> Trial:
    fault, allowed = cell.fault, tuple(d.value for d in NOT_PROMOTED)
    return Trial(
        ProofPart.PAIRS, fault.id, fault.breaks, allowed, cell.decision, cell.as_declared, cell.reason, cell.seconds
    )
