"""The production-ready checklist: each box ticked by evidence, by a dated attestation, or not ticked. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from gates.decision.policy_file import Attestation
from gates.reports.formats.rows import Row


@dataclass(frozen=True, slots=True)
class Box:
    """One line of the checklist. `patterns`: the checks that tick it, all of them; none: people tick it."""

    name: str
    patterns: tuple[str, ...] = ()


BOXES = (
    Box("Proof drill passed", ("drill/*",)),
    Box("SQL spot checks verified", ("sql/*",)),
    Box("Alerting thresholds configured", ("alert/*",)),
    Box("k6 thresholds set and tested", ("load/*",)),
    Box("Feature flags deployed", ("drill/flags/*",)),
    Box("Replay budgets configured", ("drill/budgets/*",)),
    Box("Operational tools ready", ("drill/proof/*",)),
    Box("Emergency procedures documented"),
    Box("Success metrics defined"),
    Box("Team trained on new procedures"),
)


@dataclass(frozen=True, slots=True)
class Ticked:
    """A box, whether it is ticked, and by what or why not."""

    name: str
    ticked: bool
    why: str


def tick(rows: Sequence[Row], attestations: Sequence[Attestation]) -> list[Ticked]:
    """Every box. Evidence ticks a box if at least one of its checks passed and no required one did not."""
    return [_by_evidence(box, rows) if box.patterns else _by_people(box, attestations) for box in BOXES]


def _by_evidence(box: Box, rows: Sequence[Row]) -> Ticked:
    own = [r for r in rows if any(fnmatchcase(r.check, p) for p in box.patterns) and r.outcome != "not applicable"]
    missing = [r for r in own if r.outcome != "pass"]
    if not own:
        return Ticked(box.name, False, "no check of it has been run here")
    if missing:
        first = missing[0]
        return Ticked(
            box.name, False, f"{len(missing)} of {len(own)} did not pass; the first: {first.check} ({first.outcome})"
        )
    return Ticked(box.name, True, f"{len(own)} checks passed")


def _by_people(box: Box, attestations: Sequence[Attestation]) -> Ticked:
    said = [a for a in attestations if a.box.strip().lower() == box.name.lower()]
    if not said:
        return Ticked(box.name, False, "nobody says so: add an attestation (box, by, date) to gate.yaml")
    latest = max(said, key=lambda a: a.date)
    return Ticked(box.name, True, f"{latest.by}, {latest.date}")
