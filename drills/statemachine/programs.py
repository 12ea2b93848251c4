"""Programs: lists of steps that a tenant's operators, producers and attackers may take, in any order. Pure data."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

KEPT = Path(__file__).with_name("kept")
RULES = (
    "emit",
    "emit_again",
    "add_items",
    "replay",
    "retry_same",
    "retry_other",
    "dry_run",
    "discard",
    "pause",
    "resume",
    "set_budget",
    "advance_clock",
    "hostile",
    "quiesce",
)
FIXED_SEED = 20241201
"""The programs of a gate: the same everywhere, so that a failure is no news of luck."""
LEAST_TIMES = 3
"""So often each rule must have been completed, or the run proves nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: a rule of RULES, and a small number that it uses as it likes (a size, a choice)."""

    rule: str
    number: int


Program = tuple[Step, ...]


def load(path: Path) -> Program:
    """Read a kept program. Raise ValueError on an unknown rule."""
    steps = tuple(Step(str(s["rule"]), int(s["number"])) for s in json.loads(path.read_text(encoding="utf-8"))["steps"])
    unknown = {s.rule for s in steps} - set(RULES)
    if unknown:
        raise ValueError(f"{path.name} has the rules {sorted(unknown)}; known are {', '.join(RULES)}")
    return steps


def kept() -> list[tuple[str, Program]]:
    return [(p.stem, load(p)) for p in sorted(KEPT.glob("*.json"))]


def dump(program: Sequence[Step], why: str) -> str:
    """The text of a kept program's file."""
    return json.dumps({"why": why, "steps": [asdict(s) for s in program]}, indent=1) + "\n"
