"""Replaces psql variables and fragments, and maps places of the new text to the old one."""

import itertools
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gates.contract.fragments import PLACE, expand
from gates.rehearsal.reading.splitting import SqlStatement, Word

_SETS = re.compile(r"\\set\s+(\w+)\s*(.*?)\s*$")


class Unknown(StrEnum):
    """What replaces a variable whose value only the caller of psql knows."""

    PARAMETER = "$"
    NULL = "null"
    ITSELF = ":"


_TYPED = {"interval": "'0'", "time": "'00:00'", **dict.fromkeys(("date", "timestamp", "timestamptz"), "'2000-01-01'")}
"""After the name of a type only a literal may follow, no parameter."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The new text, and its pieces: where each begins, where it was, and whether it is unchanged."""

    text: str
    pieces: tuple[tuple[int, int, bool], ...]
    unknown: tuple[str, ...] = ()

    def old(self, offset: int) -> int:
        """The old position of one in the new text."""
        index = bisect_right(self.pieces, offset, key=lambda p: p[0]) - 1
        new, old, same = self.pieces[max(index, 0)]
        return old + (offset - new if same else 0)


def rewrite(text: str, parts: Iterable[tuple[int, int, str]], unknown: Sequence[str] = ()) -> Rewritten:
    """Replace each part from its first to its second position; they do not overlap."""
    made, pieces, last, length = [], [(0, 0, True)], 0, 0
    for start, end, new in sorted(parts):
        made += [text[last:start], new]
        pieces += [(length, last, True), (length + start - last, start, False)]
        length += start - last + len(new)
        last = end
    pieces.append((length, last, True))
    return Rewritten("".join([*made, text[last:]]), tuple(pieces), tuple(unknown))


def with_fragments(text: str, folders: Sequence[Path]) -> Rewritten:
    """`{{name}}` replaced by its file. Raise FragmentError if there is none."""
    return rewrite(text, [(m.start(), m.end(), expand(m[0], folders)) for m in PLACE.finditer(text)])


def variable_of(meta: SqlStatement) -> tuple[str, str] | None:
    r"""The name and the value that a `\set` gives."""
    found = _SETS.match(meta.text)
    return (found[1], found[2].strip("'")) if found else None


def with_values(statement: SqlStatement, values: Mapping[str, str], unknown: Unknown) -> Rewritten:
    """Replace psql's `:name`, `:'name'`, `:"name"`, and drivers' `%s`, `%(name)s`, by values, or by `unknown`."""
    parts, names = [], []
    for start, end, raw, before in _variables(statement.text, statement.words, statement.start):
        name, quote = raw.strip("'\""), raw[:1] if raw[:1] in "'\"" else ""
        if name in values:
            new = values[name].replace(quote, quote * 2) if quote else values[name]
            new = f"{quote}{new}{quote}"
        else:
            names += [name] * (name not in names)
            if unknown is Unknown.ITSELF:
                continue
            new = f"${names.index(name) + 1}" if unknown is Unknown.PARAMETER else str(unknown)
            new = _TYPED.get(before, new)
        parts.append((start, end, new))
    return rewrite(statement.text, parts, names)


def _variables(text: str, words: Sequence[Word], offset: int) -> Iterator[tuple[int, int, str, str]]:
    """The place of each, its name as written, and the word before it."""
    depth, before = 0, ""
    for index, (word, after) in enumerate(itertools.pairwise(words)):
        depth += {"[": 1, "]": -1}.get(word.text, 0)
        start, raw = word.start - offset, text[after.start - offset : after.end - offset]
        found = _OF_DRIVERS.match(text, start) if word.text == "%" else None
        if found:
            yield start, found.end(), found[1] or f"%s of column {start + 1}", before
        elif word.text == ":" and after.start == word.end and (after.is_name or after.is_text) and not depth:
            yield start, after.end - offset, raw, before
        before = words[index].text


_OF_DRIVERS = re.compile(r"%(?:\((\w+)\))?s\b")
