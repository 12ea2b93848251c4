"""Which real state is which of the contract, by what people call it. Pure but for the synonyms."""

from __future__ import annotations

from collections.abc import Sequence

from gates.doctor.assignment import NONE, assign
from gates.doctor.words import Synonyms, words


def match_values(wanted: Sequence[str], real: Sequence[str], known: Synonyms) -> dict[str, str]:
    """The real value of each value of the contract, where there is one: value of the contract -> real value."""
    scores = [
        [
            1.0 if r == w else 0.98 if r.lower() == w else _value_score(known.spellings("values", w), words(r))
            for r in real
        ]
        for w in wanted
    ]
    found = assign(scores, 0.3)
    return {w: real[p] for w, p in zip(wanted, found, strict=True) if p != NONE}


def _value_score(spellings: Sequence[tuple[str, ...]], own: tuple[str, ...]) -> float:
    """The earlier a spelling stands in the list, the better it is."""
    for place, spelled in enumerate(spellings):
        if spelled == own:
            return 0.9 - 0.03 * place
    return 0.0
