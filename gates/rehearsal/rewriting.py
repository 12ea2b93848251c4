"""Puts values in the place of psql's variables and of fragments, and knows where everything came from."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gates.contract.fragments import PLACE, expand
from gates.rehearsal.splitting import SqlStatement

_SETS = re.compile(r"\\set\s+(\w+)\s*(.*?)\s*$")


class Unknown(StrEnum):
    """What stands for a variable whose value only the caller of psql knows."""

    PARAMETER = "$"
    NULL = "null"


_TYPED = {"interval": "'0'", "time": "'00:00'", **dict.fromkeys(("date", "timestamp", "timestamptz"), "'2000-01-01'")}
"""Behind the name of a type stands a literal, and no parameter."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The new text, and the pieces of it: where each begins, where it was, and whether it is as it was."""

    text: str
    pieces: tuple[tuple[int, int, bool], ...]
    unknown: tuple[str, ...] = ()

    def old(self, offset: int) -> int:
        """Where a position of the new text was in the old one."""
        index = bisect_right(self.pieces, offset, key=lambda p: p[0]) - 1
        new, old, same = self.pieces[max(index, 0)]
        return old + (offset - new if same else 0)


def rewrite(text: str, parts: Iterable[tuple[int, int, str]], unknown: Sequence[str] = ()) -> Rewritten:
    """Put each part in the place from its first to its second position; they do not overlap."""
    made, pieces, last, length = [], [(0, 0, True)], 0, 0
    for start, end, new in sorted(parts):
        made += [text[last:start], new]
        pieces += [(length, last, True), (length + start - last, start, False)]
        length += start - last + len(new)
        last = end
    pieces.append((length, last, True))
    return Rewritten("".join([*made, text[last:]]), tuple(pieces), tuple(unknown))


def with_fragments(text: str, folders: Sequence[Path]) -> Rewritten:
    """`{{name}}` replaced by its file. Raise FragmentError where there is none."""
    return rewrite(text, [(m.start(), m.end(), expand(m[0], folders)) for m in PLACE.finditer(text)])


def variable_of(meta: SqlStatement) -> tuple[str, str] | None:
    r"""The name and the value that a `\set` gives."""
    found = _SETS.match(meta.text)
    return (found[1], found[2].strip("'")) if found else None


def with_values(statement: SqlStatement, values: Mapping[str, str], unknown: Unknown) -> Rewritten:
    """Psql's `:name`, `:'name'` and `:"name"` replaced by values, and by `unknown` where there is no value."""
    parts, names = [], []
    depth = 0
    for index, (colon, word) in enumerate(itertools.pairwise(statement.words)):
        depth += {"[": 1, "]": -1}.get(colon.text, 0)
        if colon.text != ":" or word.start != colon.end or not (word.is_name or word.is_text):
            continue
        raw = statement.text[word.start - statement.start : word.end - statement.start]
        name, quote = raw.strip("'\""), raw[:1] if raw[:1] in "'\"" else ""
        if name in values:
            new = values[name].replace(quote, quote * 2) if quote else values[name]
            new = f"{quote}{new}{quote}"
        elif depth:
            continue  # a slice of an array
        else:
            names += [name] * (name not in names)
            new = f"${names.index(name) + 1}" if unknown is Unknown.PARAMETER else str(unknown)
            new = _TYPED.get(statement.words[index - 1].text if index else "", new)
        parts.append((colon.start - statement.start, word.end - statement.start, new))
    return rewrite(statement.text, parts, names)
