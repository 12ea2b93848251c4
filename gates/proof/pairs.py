"""Two faults at once: each could hide the other. The deployment must not be promoted, and one of the two be named."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import combinations

from gates.evidence import CheckSpec, TargetKind
from gates.proof.campaign import scope_of
from gates.proof.fault import Fault, Kind
from gates.proof.judgement import Cell
from gates.proof.short import is_loaded, is_short
from gates.proof.trial import ProofPart, Trial
from gates.verdict import Decision

PAIRS = 200
ALLOWED = (Decision.HOLD, Decision.ROLLBACK)


def pairs(
    faults: Sequence[Fault], catalogue: Sequence[CheckSpec], wanted: TargetKind, count: int, seed: str
) -> list[Fault]:
    """So many pairs, drawn by the seed, of faults that the short way can show without a load and the same run sees:
    half of them of one area, where one fault is likeliest to hide the other, half of two.
    """
    able = [f for f in faults if not f.is_noop and is_short(f, catalogue) and not is_loaded(f, catalogue)]
    scopes = {f.id: scope_of(f, catalogue, wanted) for f in able}
    areas = {f.id: {s.id.split("/")[1] for s in catalogue if f.declares(s.id)} for f in able}
    fit = [(a, b) for a, b in combinations(able, 2) if scopes[a.id] == scopes[b.id] and _fit(a, b)]
    ordered = sorted(fit, key=lambda p: hashlib.sha256(f"{seed} {p[0].id} {p[1].id}".encode()).digest())
    near = [p for p in ordered if areas[p[0].id] & areas[p[1].id]][: count // 2]
    far = [p for p in ordered if not areas[p[0].id] & areas[p[1].id]][: count - len(near)]
    return [pair(*both) for both in (*near, *far)]


def _fit(first: Fault, second: Fault) -> bool:
    """Whether both can be in at once: one proxy is enough."""
    return not first.kind is second.kind is Kind.PROXY


def pair(first: Fault, second: Fault) -> Fault:
    """Both faults as one: seen by the checks of either, named by the names of either."""
    return Fault(
        f"{first.id} + {second.id}",
        f"{first.breaks} {second.breaks}",
        Kind.PAIR,
        None,
        checks=(*first.checks, *second.checks),
        names=(*first.names, *second.names) if first.names and second.names else (),
        members=(first, second),
    )


def as_trial(cell: Cell) -> Trial:
    """What came of a pair."""
    fault, allowed = cell.fault, tuple(d.value for d in ALLOWED)
    return Trial(
        ProofPart.PAIRS, fault.id, fault.breaks, allowed, cell.decision, cell.as_declared, cell.reason, cell.seconds
    )
