"""Matches real states with the contract's by their names. Pure except for the synonyms."""

from collections import Counter
from collections.abc import Sequence

from gates.doctor.matching.assignment import NONE, assign
from gates.doctor.words import Synonyms, words


def match_values(wanted: Sequence[str], real: Sequence[str], known: Synonyms) -> dict[str, str]:
    """Value of the contract -> real value, if there is one."""
    shared = shared_word(real)
    scores = [
        [
            1.0 if r == w else 0.98 if r.lower() == w else _value_score(known.spellings("values", w), words(r), shared)
            for r in real
        ]
        for w in wanted
    ]
    found = assign(scores, 0.3)
    matched = {w: real[p] for w, p in zip(wanted, found, strict=True) if p != NONE}
    lacking, left = [w for w in wanted if w not in matched], [r for r in real if r not in matched.values()]
    if matched and len(lacking) == len(left) == 1 and len(wanted) == len(real):
        matched[lacking[0]] = left[0]  # all others are taken
    return matched


def shared_word(names: Sequence[str]) -> str:
    """The first word that several names share, as `redrive` of `redrive.begin` and `redrive.finish`."""
    first = Counter(words(name)[0] for name in names if len(words(name)) > 1)
    word, times = first.most_common(1)[0] if first else ("", 0)
    return word if times > 1 else ""


def _value_score(spellings: Sequence[tuple[str, ...]], own: tuple[str, ...], shared: str) -> float:
    """The earlier a spelling is in the list, the better; without the shared word it is nearly as good."""
    rest = own[1:] if own[:1] == (shared,) else ()
    for place, spelled in enumerate(spellings):
        if spelled in {own, rest}:
            return 0.9 - 0.03 * place - 0.01 * (spelled != own)
    return 0.0
