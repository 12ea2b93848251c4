"""Two faults at once: each could hide the other. The deployment must not be promoted, and one of the two be named."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Sequence
from itertools import combinations

from gates.evidence import CheckSpec, TargetKind
from gates.proof.campaign import scope_of
from gates.proof.fault import Fault, Kind
from gates.proof.judgement import Cell
from gates.proof.short import is_loaded, is_short
from gates.proof.trial import NOT_PROMOTED, ProofPart, Trial

PAIRS = 200
DRAWS = 3
"""So often at most pairs are drawn: for those that cannot be in together, the next ones of the same draw."""


def pairs(
    faults: Sequence[Fault],
    catalogue: Sequence[CheckSpec],
    wanted: TargetKind,
    count: int,
    seed: str,
    without: Container[str] = (),
) -> list[Fault]:
    """So many pairs, drawn by the seed, of faults that the short way can show without a load and the same run sees:
    half of them of one area, where one fault is likeliest to hide the other, half of two. Instead of those `without`
    come the next ones.
    """
    own = {f.id: [s for s in catalogue if f.declares(s.id)] for f in faults}
    able = [f for f in faults if not f.is_noop and is_short(f, own[f.id]) and not is_loaded(f, own[f.id])]
    scopes = {f.id: scope_of(f, own[f.id], wanted) for f in able}
    areas = {f.id: {s.id.split("/")[1] for s in own[f.id]} for f in able}
    alike = ((a, b) for a, b in combinations(able, 2) if scopes[a.id] == scopes[b.id])
    fit = [(a, b) for a, b in alike if _fit(a, b) and _name(a, b) not in without]
    ordered = sorted(fit, key=lambda p: hashlib.sha256(f"{seed} {p[0].id} {p[1].id}".encode()).digest())
    near = [p for p in ordered if areas[p[0].id] & areas[p[1].id]][: count // 2]
    far = [p for p in ordered if not areas[p[0].id] & areas[p[1].id]][: count - len(near)]
    return [pair(*both) for both in (*near, *far)]


def _fit(first: Fault, second: Fault) -> bool:
    """Whether both can be in at once: one proxy is enough."""
    return not first.kind is second.kind is Kind.PROXY


def _name(first: Fault, second: Fault) -> str:
    return f"{first.id} + {second.id}"


def pair(first: Fault, second: Fault) -> Fault:
    """Both faults as one: seen by the checks of either, named by the names of either."""
    return Fault(
        _name(first, second),
        f"{first.breaks} {second.breaks}",
        Kind.PAIR,
        None,
        checks=(*first.checks, *second.checks),
        names=(*first.names, *second.names) if first.names and second.names else (),
        members=(first, second),
    )


def as_trial(cell: Cell) -> Trial:
    """What came of a pair."""
    fault, allowed = cell.fault, tuple(d.value for d in NOT_PROMOTED)
    return Trial(
        ProofPart.PAIRS, fault.id, fault.breaks, allowed, cell.decision, cell.as_declared, cell.reason, cell.seconds
    )
