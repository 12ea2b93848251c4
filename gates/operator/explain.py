"""`gate explain`: checks and promises, from the catalogue. Pure except for reading files."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from gates.contract.remedies import remedy_of
from gates.errors import UsageError
from gates.evidence import CheckSpec
from gates.inputs.shapes import nearest_id
from gates.proof.fault import ListedFault
from gates.reports.how_checked import Source, how_checked
from gates.stack.extra import INSTALL
from gates.stages.suite import ROOT
from gates.text.own_data import data_of
from gates.text.patterns import matches

LINES = Path(__file__).with_name("lines.json")
MOST_FAULTS = 8
MOST_SOURCES = 3
EFFECTS = {"page": "a failure rolls back", "warn": "a failure holds", "investigate": "a failure is noted"}
WHERE = {
    "read-only": "runs everywhere and changes nothing",
    "self-cleaning": "runs everywhere, on tenants of its own that it removes",
    "staging": "runs on staging and on the reference",
    "disruptive": "runs on the reference, on staging with --disruptive",
    "reference": "runs on the reference alone",
}


@dataclass(frozen=True, slots=True)
class Explained:
    """One check, with the texts of its promises and the ids of the faults that must turn it red."""

    spec: CheckSpec
    promises: Mapping[str, str]
    faults: tuple[str, ...] | None
    """None: unknown without the reference."""
    how: Source = field(default_factory=Source)
    """Only for a check that is asked for alone or with few others."""

    def lines(self) -> list[str]:
        """The text for people."""
        s = self.spec
        facts = [EFFECTS[s.severity.value], WHERE[s.where.value]]
        facts += ["only with --deep"] * s.deep
        facts += [f"needs {', '.join(s.needs)}"] * bool(s.needs)
        facts += [f"unknown unless {' and '.join(s.after)} passed"] * bool(s.after)
        found = [s.id, f"  claim     {s.claim}"]
        found += [f"  cost      {s.cost}"] * bool(s.cost)
        found += [f"  do        {remedy_of(s.id)}"] * bool(remedy_of(s.id))
        found += [f"  area      {s.area}"] * bool(s.area)
        found.append(f"  in short  {'; '.join(facts)}")
        found += [f"  checked   {self.how.place}"] * bool(self.how.place)
        found += [f"            {line}".rstrip() for line in self.how.text.splitlines()]
        found += [f"  promise   {line}: {text}" for line, text in self.promises.items()]
        return [*found, f"  red on    {self._red_on()}"]

    def _red_on(self) -> str:
        if self.faults is None:
            return f"faults of the reference, which is not installed: {INSTALL}"
        more = len(self.faults) - MOST_FAULTS
        shown = ", ".join(self.faults[:MOST_FAULTS]) + (f" and {more} more" if more > 0 else "")
        if shown or not self.spec.id.startswith("drill/"):
            return shown or "planted cases of its own tests; no fault of the catalogue"
        return "no fault of the catalogue: add one in faults/"

    def to_json(self) -> dict[str, object]:
        return {
            **self.spec.to_json(),
            "promises": dict(self.promises),
            "faults": None if self.faults is None else list(self.faults),
            **({"checked": {"place": self.how.place, "text": self.how.text}} if self.how.place else {}),
        }


def explain(
    specs: Sequence[CheckSpec], patterns: Sequence[str], faults: Sequence[ListedFault] | None
) -> list[Explained]:
    """The checks that the patterns name, or all. Raise UsageError for a pattern that names no check."""
    known, lines = tuple(s.id for s in specs), promised_lines()
    for pattern in patterns:
        if not any(fnmatchcase(i, pattern) for i in known):
            raise UsageError(
                f"no check is called {pattern!r}; allowed: ids and globs of ids. {nearest_id(pattern, known)}"
            )
    chosen = [s for s in specs if not patterns or matches(s.id, patterns)]
    return [
        Explained(
            s,
            {c: lines[c] for c in s.covers},
            None if faults is None else tuple(f.id for f in faults if f.declares(s.id)),
            how_checked(s.id) if len(chosen) <= MOST_SOURCES else Source(),
        )
        for s in chosen
    ]


def promises(specs: Sequence[CheckSpec]) -> list[dict[str, object]]:
    """Every promise: its id, its text, and its checks or the reason why it has none."""
    left_out = left_out_lines()
    return [
        {"line": i, "promise": text, "checks": [s.id for s in specs if i in s.covers], "reason": left_out.get(i, "")}
        for i, text in sorted(promised_lines().items())
    ]


def as_text(found: Iterable[Explained]) -> list[str]:
    """All lines, with an empty one between two checks."""
    return [line for one in found for line in ("", *one.lines())][1:]


def promises_text(rows: Iterable[Mapping[str, object]]) -> list[str]:
    """A promise, and beneath it its checks or the reason."""
    found: list[str] = []
    for row in rows:
        found.append(f"{row['line']} {row['promise']}")
        checks = row["checks"]
        found += [f"  {check}" for check in (checks if isinstance(checks, list) else ())]
        found += [f"  {row['reason']}"] * bool(row["reason"])
    return found


def promised_lines() -> dict[str, str]:
    """Every promise that a strong harness verifies: id (A01...) -> text."""
    return dict(json.loads(LINES.read_text(encoding="utf-8")))


def left_out_lines() -> dict[str, str]:
    """The promises without a check: id -> reason. Each of the two suites may give reasons."""
    found: dict[str, str] = {}
    for path in sorted(ROOT.glob("*/left_out.yaml")):
        for line, reason in data_of(path).items():
            found[line] = f"{found[line]} {reason}" if line in found else reason
    return found


def unaccounted(specs: Iterable[CheckSpec], lines: Iterable[str], left_out: Iterable[str]) -> list[str]:
    """Lines that have neither a check nor a reason, and cited ids that are not in the list."""
    all_lines, without = set(lines), set(left_out)
    covered = {line for s in specs for line in s.covers}
    return sorted((all_lines - covered - without) | ((covered | without) - all_lines))
