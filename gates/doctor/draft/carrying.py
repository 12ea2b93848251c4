"""Carries `names:` of gate.yaml over into a new draft: a person wrote it, and no guess replaces it. Pure."""

import math
from collections.abc import Mapping
from typing import Any

import yaml

from gates.doctor.draft.lines import scalar

SAID = "  # as it was said"
PART = 2
"""The indentation of each member of a draft below the one above it."""


def with_said(text: str, drafted: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    """The draft, with what gate.yaml says replacing what was drafted. drafted: the draft's `names`, read."""
    lines = text.splitlines()
    for part, value in _merged(drafted, said).items():
        if value == drafted.get(part):
            continue
        if part != "tables":
            lines = _placed(lines, ("names",), part, value)
            continue
        before = drafted.get(part, {})
        for table in (t for t in value if value[t] != before.get(t)):
            lines = _placed(lines, ("names", "tables"), table, value[table])
    return "\n".join(lines) + "\n"


def _merged(drafted: Any, said: Any) -> Any:
    """Both merged if both are mappings; else what gate.yaml says. A table with columns is not absent as well."""
    if not (isinstance(drafted, Mapping) and isinstance(said, Mapping)):
        return said
    both = {**drafted, **{k: _merged(drafted[k], v) if k in drafted else v for k, v in said.items()}}
    if len(both) > 1 and both.get("absent") is True and "absent" not in said:
        del both["absent"]
    return both


def _placed(lines: list[str], above: tuple[str, ...], name: str, value: Any) -> list[str]:
    """The lines with a one-line member replacing the old one, or at the end of its parent."""
    start, end = 0, len(lines)
    for depth, parent in enumerate(above):
        found = _block(lines, parent, PART * depth, start, end)
        if found is None:
            lines = [*lines[:end], *([""] if not depth else []), f"{' ' * PART * depth}{parent}:", *lines[end:]]
            end += 1 if depth else 2
            found = end - 1, end
        start, end = found
    indent = PART * len(above)
    at, after = _block(lines, name, indent, start, end) or (end, end)
    return [*lines[:at], f"{' ' * indent}{_member(name, value)}{SAID}", *lines[after:]]


def _block(lines: list[str], name: str, indent: int, start: int, end: int) -> tuple[int, int] | None:
    """The first and last line of a member."""
    heads = tuple(f"{' ' * indent}{n}:" for n in {name, scalar(name)})
    at = next((i for i in range(start, end) if lines[i].startswith(heads)), None)
    if at is None:
        return None
    deeper = " " * (indent + 1)
    return at, next((i for i in range(at + 1, end) if not lines[i].startswith(deeper)), end)


def _member(name: str, value: Any) -> str:
    """A member of YAML on one line, whatever it holds."""
    return yaml.safe_dump({name: value}, default_flow_style=True, width=math.inf, sort_keys=False).strip()[1:-1]
