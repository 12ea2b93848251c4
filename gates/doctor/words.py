"""How similar two names are: by their words, by synonyms (synonyms.yaml), by letters. Similarity is a number from 0
(nothing in common) to 1 (the same name).
"""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from gates.text.own_data import data_of

FILE = Path(__file__).with_name("synonyms.yaml")
LONGEST = 128
"""How much of a name is looked at; PostgreSQL allows 63 bytes."""
SHORTEST = 3
"""Letters of a word within another one."""
SAME, KIN, ALIKE, ABBREVIATED, PARTLY = 1.0, 0.85, 0.7, 0.65, 0.5
"""Scores: the same word; synonyms; nearly the same letters; a word without its vowels; a prefix."""
INITIALS, OTHER, WITHOUT_OWNER = 0.75, 0.95, 0.97
"""Factors: an acronym; another spelling than the contract's; a name without the words of its table."""
NEARLY = 0.84
"""The share of common letters, in order, from which a word is taken for a misspelling of another."""
WHOLE = frozenset(
    {"id", "no", "ok", "ip", "on", "at", "by", "is", "to", "of", "in", "up", "as", "or", "an", "end", "not"}
)
"""Short words that stand for themselves."""
FILLERS = frozenset({"tbl", "table", "the", "a", "of", "t", "is", "vw", "view", "at", "on", "by", "my"})
"""Words that mean little: they count a quarter."""
_WORD = re.compile(r"[A-Z]{2,}s(?![a-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
SHORT = {
    "org": "organization", "msg": "message", "evt": "event", "cfg": "config", "cnt": "count", "num": "number",
    "pct": "percentage", "desc": "description", "ts": "timestamp", "usr": "user", "err": "error", "ref": "reference",
    "dlq": "dead letter queue", "dl": "dead letter", "max": "maximum", "min": "minimum", "prev": "previous",
    "req": "request", "idem": "idempotency", "acct": "account", "cust": "customer", "qty": "count", "ids": "id",
    "tx": "transaction", "txn": "transaction", "meta": "metadata", "uid": "id", "pk": "id", "guid": "id", "uuid": "id",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Synonyms:
    """The file, read: classes: word -> its class; named: kind -> name of the contract -> the words of each spelling."""

    classes: Mapping[str, frozenset[str]]
    named: Mapping[str, Mapping[str, tuple[tuple[str, ...], ...]]]
    paths: Mapping[str, tuple[str, ...]]
    """Endpoint of the contract -> paths without a slash at the start, as people write them."""
    headers: Mapping[str, tuple[str, ...]]

    def spellings(self, kind: str, name: str, owner: str = "") -> tuple[tuple[str, ...], ...]:
        """The names of a contract object; owner: the table of a column."""
        listed = self.named.get(kind, {})
        own = listed.get(f"{owner}.{name}", ()) if owner else ()
        return (words(name), *own, *listed.get(name, ()))


@functools.cache
def synonyms() -> Synonyms:
    """synonyms.yaml, read once."""
    data: dict[str, Any] = data_of(FILE)
    classes: dict[str, set[str]] = {}
    for name, listed in data.pop("classes").items():
        for word in listed:
            classes.setdefault(_stem(word), set()).add(name)
    paths = {name: tuple(listed) for name, listed in data.pop("paths").items()}
    headers = {name: tuple(listed) for name, listed in data.pop("headers").items()}
    named = {kind: {n: tuple(map(words, listed)) for n, listed in given.items()} for kind, given in data.items()}
    return Synonyms({w: frozenset(c) for w, c in classes.items()}, named, paths, headers)


def spelled_paths(endpoint: str) -> tuple[str, ...]:
    """The path names of an endpoint of the contract, without a leading slash."""
    return synonyms().paths.get(endpoint, ())


@functools.lru_cache(maxsize=100_000)
def words(name: str) -> tuple[str, ...]:
    """The words of a name in any convention, in lower case and singular: `TenantIDs`, `tenant_ids` -> tenant, id."""
    found: list[str] = []
    plain = "".join(c for c in unicodedata.normalize("NFKD", name[:LONGEST]) if not unicodedata.combining(c))
    for part in _WORD.findall(plain):
        word = part.lower()
        found += map(_stem, (SHORT.get(word) or SHORT.get(_stem(word)) or " ".join(_parted(word))).split())
    return tuple(found)


@functools.cache
def _vocabulary() -> frozenset[str]:
    """The words of which tables' names are made."""
    listed: Mapping[str, Sequence[str]] = data_of(FILE)["tables"]
    found = {w for names in listed.values() for name in names for w in _WORD.findall(name) if len(w) >= SHORTEST}
    return frozenset(found | {w.removesuffix("s") for w in found})


def _parted(word: str) -> tuple[str, ...]:
    """The words in a run-together word, such as Django's `deadletter`; else the word itself."""
    known = _vocabulary()
    for end in range(len(word) - SHORTEST, SHORTEST - 1, -1) if word not in known else ():
        if word[:end] in known and (word[end:] in known or len(_parted(word[end:])) > 1):
            return word[:end], *_parted(word[end:])
    return (word,)


def _stem(word: str) -> str:
    """The word in the singular, without the ending of a participle: `tries` -> try, `delivered` -> deliver."""
    if len(word) <= 3 or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if word.endswith(("sses", "xes", "ches", "shes", "zes")):
        return word[:-2]
    word = word.removesuffix("s")
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word.removesuffix(ending).removesuffix("e")
    return word.removesuffix("e") if len(word) > 5 else word


@functools.lru_cache(maxsize=200_000)
def word_likeness(one: str, other: str) -> float:
    """How alike two words are."""
    if one == other:
        return SAME
    classes = synonyms().classes
    if classes.get(one, frozenset()) & classes.get(other, frozenset()):
        return KIN
    short, long = sorted((one, other), key=len)
    if len(short) < 4:
        return _abbreviation(short, long)
    like_enough = one[0] == other[0] and len(long) - len(short) <= 2
    if like_enough and SequenceMatcher(None, one, other, autojunk=False).ratio() >= NEARLY:
        return ALIKE
    return PARTLY if long.startswith(short) else _abbreviation(short, long)


def _abbreviation(short: str, long: str) -> float:
    """Whether one is the other without its vowels (`grp`, `nxt`), or a prefix of that; whole words do not count."""
    if not 2 <= len(short) <= 5 or short in WHOLE or short[0] != long[0] or len(long) <= len(short):
        return 0.0
    bones = long[0] + "".join(c for c in long[1:] if c not in "aeiou")
    return ABBREVIATED if bones.startswith(short) or (len(short) >= 3 and long.startswith(short)) else 0.0


def _weight(word: str) -> float:
    return 0.25 if word in FILLERS else 1.0


@functools.lru_cache(maxsize=200_000)
def likeness(one: tuple[str, ...], other: tuple[str, ...]) -> float:
    """How alike two names are, given as words."""
    if one == other:
        return SAME
    if len(one) > 1 and len(other) == 1 and "".join(w[0] for w in one) == other[0]:
        return INITIALS
    pairs = sorted(
        ((word_likeness(a, b), i, j) for i, a in enumerate(one) for j, b in enumerate(other)),
        key=lambda p: (-p[0], p[1], p[2]),
    )
    used_one, used_other, found = set[int](), set[int](), 0.0
    for alike, i, j in pairs:
        if alike and i not in used_one and j not in used_other:
            used_one.add(i)
            used_other.add(j)
            found += alike * (_weight(one[i]) + _weight(other[j]))
    total = sum(map(_weight, one)) + sum(map(_weight, other))
    return min(found / total, 0.99) if total else 0.0


def best_likeness(spellings: Iterable[tuple[str, ...]], name: tuple[str, ...]) -> float:
    """The similarity of a name to that of the contract (the first spelling), or, slightly less, to another spelling."""
    return max((likeness(s, name) * (1.0 if n == 0 else OTHER) for n, s in enumerate(spellings)), default=0.0)


class Likenesses:
    """The similarity of real names to every name of one kind of the contract; each real name is computed once."""

    def __init__(self, kind: str, names: Iterable[tuple[str, str]]) -> None:
        """names: each name of the contract with the table of a column, or nothing."""
        self._spelled: dict[tuple[str, ...], dict[tuple[str, str], float]] = {}
        for name, owner in names:
            for place, spelled in enumerate(synonyms().spellings(kind, name, owner)):
                worth = SAME if place == 0 else OTHER
                known = self._spelled.setdefault(spelled, {})
                known[name, owner] = max(worth, known.get((name, owner), 0.0))
        self._by_word: dict[str, set[tuple[str, ...]]] = {}
        for spelled in self._spelled:
            initials = ["".join(w[0] for w in spelled)] * (len(spelled) > 1)
            for word in {*initials, *(set(spelled) - FILLERS or spelled)}:
                self._by_word.setdefault(word, set()).add(spelled)
        self._near: dict[str, frozenset[str]] = {}
        self._found: dict[tuple[str, ...], Mapping[tuple[str, str], float]] = {}

    def knows(self, name: tuple[str, ...]) -> bool:
        """Whether this is a spelling of some name of the contract, word for word."""
        return name in self._spelled

    def of(self, name: tuple[str, ...], ignored: frozenset[str] = frozenset()) -> Mapping[tuple[str, str], float]:
        """(name of the contract, its table) -> similarity. ignored: words that may mean nothing, e.g. the table's."""
        found = self._looked_up(name)
        rest = tuple(w for w in name if w not in ignored)
        if not rest or rest == name:
            return found
        return found | {k: max(WITHOUT_OWNER * v, found.get(k, 0.0)) for k, v in self._looked_up(rest).items()}

    def _looked_up(self, name: tuple[str, ...]) -> dict[tuple[str, str], float]:
        if name not in self._found:
            made: dict[tuple[str, str], float] = {}
            near = {v for w in (set(name) - FILLERS or set(name)) for v in self._words_near(w)}
            for spelled in {s for word in near for s in self._by_word[word]}:
                alike = likeness(spelled, name)
                for key, worth in self._spelled[spelled].items():
                    if alike * worth > made.get(key, 0.0):
                        made[key] = alike * worth
            self._found[name] = made
        return dict(self._found[name])

    def _words_near(self, word: str) -> frozenset[str]:
        if word not in self._near:
            self._near[word] = frozenset(w for w in self._by_word if word_likeness(w, word) or w == word)
        return self._near[word]


def common_words(names: Sequence[str]) -> frozenset[str]:
    """First words that a third of the names share, like the name of the application."""
    if len(names) < 4:
        return frozenset()
    first = Counter(words(n)[0] for n in names if len(words(n)) > 1)
    return frozenset(w for w, n in first.items() if n * 3 >= len(names) and n >= 4)
