"""Numbers and values as people read them. Standard library only."""


def shown(value: object) -> str:
    """A value as people read it: a number in four digits, or whole; a dash where there is none."""
    if isinstance(value, float):
        return f"{value:.0f}" if 10_000 <= abs(value) < 1e15 else f"{value:.4g}"
    return "-" if value is None else str(value)


def with_unit(value: object, unit: str) -> str:
    """A value with its unit; one of several things is in the singular. A ratio has no unit."""
    word = unit.removesuffix("s") if value == 1 and len(unit) > 2 and unit.replace(" ", "").isalpha() else unit
    word = "" if unit == "ratio" else word
    return f"{shown(value)} {word}".rstrip()


def span(seconds: float) -> str:
    """A length of time as people say it: 45 s, 12 min, 3.5 h, 2.1 d."""
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if abs(seconds) < limit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 86_400:.3g} d"
