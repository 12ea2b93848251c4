"""Shell patterns of names: a set is compiled to one expression, once."""

import re
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache

_SIGNS = frozenset("*?[")


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether any of the patterns matches the name, case-sensitively."""
    plain, like = _read(tuple(patterns))
    return name in plain or like.match(name) is not None


@lru_cache(maxsize=4096)
def _read(patterns: tuple[str, ...]) -> tuple[frozenset[str], re.Pattern[str]]:
    """The names among the patterns, and an expression for the others."""
    plain = frozenset(p for p in patterns if _SIGNS.isdisjoint(p))
    return plain, re.compile("|".join(translate(p) for p in patterns if p not in plain) or "(?!)")
