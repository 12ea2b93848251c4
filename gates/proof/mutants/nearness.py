"""Which checks most likely see a mutant: those with the words of its file and line. Pure."""

import math
import re
from collections import Counter
from collections.abc import Sequence

from gates.evidence import CheckSpec
from gates.proof.mutants.mutant import Mutant

WORD = re.compile(r"[a-z]{3,}")


def nearest(mutant: Mutant, specs: Sequence[CheckSpec], count: int) -> list[CheckSpec]:
    """The given number of checks, the likeliest first; rare words weigh most."""
    of_specs = [_words(f"{s.id} {s.claim}") for s in specs]
    known = Counter(word for words in of_specs for word in words)
    said = _words(mutant.about)

    def weight(i: int) -> float:
        return sum(math.log(len(specs) / known[word]) for word in said & of_specs[i])

    order = sorted(range(len(specs)), key=lambda i: (-weight(i), specs[i].id))
    return [specs[i] for i in order[:count]]


def _words(text: str) -> set[str]:
    return {word.rstrip("s") for word in WORD.findall(text.lower())}
