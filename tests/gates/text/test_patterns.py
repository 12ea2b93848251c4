"""Patterns that are read once answer as Python's own, one by one."""

from fnmatch import fnmatchcase

from hypothesis import given
from hypothesis import strategies as st

from gates.text.patterns import matches

TEXTS = st.text("ab/*?[]!-.\n", max_size=6)


@given(TEXTS, st.lists(TEXTS, max_size=4))
def test_a_set_of_patterns_matches_what_one_of_them_does(name: str, patterns: list[str]) -> None:
    """Names, stars, marks, brackets that close or not, and none at all."""
    assert matches(name, patterns) is any(fnmatchcase(name, pattern) for pattern in patterns)
