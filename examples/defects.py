"""Defects of the examples as data: `defects.yaml` beside each, read and planted."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from examples import edge_function, pg_boss
from examples.ground import HERE, Ground, Patch
from gates.text.own_data import data_of

BringUp = Callable[[Ground, Sequence[Patch], Sequence[str]], Mapping[str, str]]
EXAMPLES: Mapping[str, BringUp] = {m.NAME: m.bring_up for m in (edge_function, pg_boss)}
KINDS = ("service", "worker", "sql", "trigger", "process", "proxy")


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect of an example. named: ids or globs, one of which the gate's first finding must be.

    None of them: nothing may fail. decisions: those that are right.
    process: name of a program -> signal that it gets once all is up (`KILL`, `STOP`).
    """

    id: str
    kind: str
    breaks: str
    named: tuple[str, ...]
    patch: tuple[Patch, ...] = ()
    sql: tuple[str, ...] = ()
    process: Mapping[str, str] = field(default_factory=dict)
    decisions: tuple[str, ...] = ("hold", "rollback")

    def plant(self, ground: Ground, example: str) -> Mapping[str, str]:
        """Bring the example up with the defect in it; the variables for the gate."""
        variables = EXAMPLES[example](ground, self.patch, self.sql)
        for program in ground.programs:
            if program.name in self.process:
                program.signal(signal.Signals[f"SIG{self.process[program.name]}"])
        return variables

    def is_named_by(self, check: str) -> bool:
        return any(fnmatchcase(check, pattern) for pattern in self.named)


def defects(example: str) -> tuple[Defect, ...]:
    """The defects of an example, in the order of the file."""
    found = data_of(HERE / example / "defects.yaml")
    return tuple(_defect(entry) for entry in found)


def _defect(entry: Mapping[str, Any]) -> Defect:
    sql = entry.get("sql", ())
    return Defect(
        **{
            **entry,
            "named": tuple(entry["named"]),
            "patch": tuple(Patch(**p) for p in entry.get("patch", ())),
            "sql": (sql,) if isinstance(sql, str) else tuple(sql),
        }
    )
