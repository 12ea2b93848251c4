"""Numbers and values as people read them. Standard library only."""

from __future__ import annotations

from gates.text.foreign import JsonValue


def shown(value: JsonValue) -> str:
    """A value as people read it; a number in four digits."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e6 else f"{value:.0f}"
    return str(value)


def with_unit(value: JsonValue, unit: str) -> str:
    """A value with its unit; one of several things is in the singular."""
    word = unit.removesuffix("s") if value == 1 and len(unit) > 2 and unit.isalpha() else unit
    return f"{shown(value)} {word}".rstrip()
