"""One row per check for the reports: its promise and its outcome. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

from gates.decision.margin import LIMITED
from gates.evidence import CheckSpec, Evidence, JsonValue, members_of
from gates.text.quantity import shown, with_unit
from gates.verdict import Finding, Verdict

OUTCOMES = ("fail", "unknown", "pass", "not applicable")
PLANNED = "cohort/share"
"""Of the cohort checks, the one with a number that has to be met."""
LOAD = "load"
"""The stage whose checks all judge one measurement."""


@dataclass(frozen=True, slots=True)
class Row:
    """One check in a report. outcome: one of OUTCOMES; effect: what it does to the decision, empty for a pass."""

    check: str
    outcome: str
    effect: str = ""
    severity: str = ""
    claim: str = ""
    cost: str = ""
    message: str = ""
    observed: JsonValue = None
    limit: JsonValue = None
    unit: str = ""
    samples: int = 0
    duration_ms: float = 0.0
    witness: JsonValue = None
    reproduce: str = ""
    blocked_by: str = ""
    started_at: str = ""
    details: Mapping[str, JsonValue] = field(default_factory=dict)
    request: str = ""
    """The request that failed, as a command."""

    @property
    def anchor(self) -> str:
        return quote(self.check, errors="backslashreplace")

    @property
    def promise(self) -> str:
        return " ".join(filter(None, (self.claim, f"What it costs: {self.cost}" if self.cost else "")))

    @property
    def aside(self) -> str:
        """Why a check that did not pass decides nothing, shown neither red nor green; else empty."""
        return f"{self.outcome} ({self.effect})" if self.effect in {"note", "waived"} else ""

    @property
    def group(self) -> str:
        """The first two parts of the id: the promise that the check belongs to; the load is one group."""
        stage, *rest = self.check.split("/")
        return f"{stage}/{rest[0]}" if len(rest) > 1 and stage != LOAD else stage

    @property
    def compared(self) -> str:
        """What was observed against its limit, in words; empty without numbers."""
        if self.observed is None:
            return ""
        seen = with_unit(self.observed, self.unit)
        is_limit = self.check.startswith((*LIMITED, "cohort/")) and self.check != PLANNED
        if self.limit is None or (self.limit == self.observed and not is_limit):
            return seen
        word = "limit" if is_limit and not isinstance(self.limit, str) else "expected"
        return f"{seen}, {word} {shown(self.limit)}"


def rows_of(verdict: Verdict, evidence: Sequence[Evidence], catalogue: Sequence[CheckSpec]) -> list[Row]:
    """Every check of the catalogue once, and every finding; by outcome (the worst first), then by id."""
    said = verdict.contract.in_its_words
    specs = {s.id: replace(s, claim=said(s.claim), cost=said(s.cost)) for s in catalogue}
    last = {e.check: e for e in evidence}
    findings = {f.check: f for f in verdict.findings}
    exempt = {n.check: n.reason for n in verdict.not_applicable}
    rows = []
    for check in sorted({*specs, *findings}):
        spec, line = specs.get(check), last.get(check)
        if check in exempt:
            rows.append(Row(check, "not applicable", claim=spec.claim if spec else "", message=exempt[check]))
        elif check in findings:
            rows.append(_found(findings[check], spec, line))
        elif line is not None and spec is not None:
            rows.append(_passed(spec, line))
        else:
            rows.append(Row(check, "unknown", claim=spec.claim if spec else "", message=verdict.reason))
    rank = {"rollback": 0, "hold": 1, "note": 2, "waived": 3, "": 4}
    return sorted(rows, key=lambda r: (rank.get(r.effect, 4), OUTCOMES.index(r.outcome), bool(r.blocked_by), r.check))


def _found(finding: Finding, spec: CheckSpec | None, line: Evidence | None) -> Row:
    found = {name: value for name, value in members_of(finding).items() if name not in {"ends_when", "symptom"}}
    promised = {"claim": spec.claim, "cost": spec.cost} if spec else {}
    seen = {**_when_and_what(line), "request": line.reproduce} if line else {}
    return Row(**{**found, "effect": finding.effect.value, **promised, **seen})


def _passed(spec: CheckSpec, line: Evidence) -> Row:
    measured = {name: getattr(line, name) for name in ("observed", "limit", "unit", "samples")}
    return Row(spec.id, "pass", "", spec.severity.value, spec.claim, spec.cost, **measured, **_when_and_what(line))


def _when_and_what(line: Evidence) -> dict[str, Any]:
    return {"duration_ms": line.duration_ms, "started_at": line.started_at, "details": line.details}


def proof_of(run: Mapping[str, JsonValue]) -> str:
    """The sentence about the gate's last proof; empty if run.json has none."""
    proof = run.get("proof")
    return str(proof.get("sentence", "")) if isinstance(proof, dict) else ""
