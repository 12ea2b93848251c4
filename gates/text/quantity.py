"""Numbers and values for people. Standard library only."""


def shown(value: object) -> str:
    """A value for people: a number with four digits, or whole; a dash for none."""
    if isinstance(value, float):
        return f"{value:.0f}" if 10_000 <= abs(value) < 1e15 else f"{value:.4g}"
    return "-" if value is None else str(value)


def with_unit(value: object, unit: str) -> str:
    """A value with its unit, in the singular for one. A ratio has no unit."""
    word = unit.removesuffix("s") if value == 1 and len(unit) > 2 and unit.replace(" ", "").isalpha() else unit
    word = "" if unit == "ratio" else word
    return f"{shown(value)} {word}".rstrip()


def span(seconds: float) -> str:
    """A duration for people: 45 s, 12 min, 3.5 h, 2.1 d."""
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if abs(seconds) < limit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 86_400:.3g} d"
