"""Splits a file into statements, psql commands and rows of COPY, each with its place.

The words are those of PostgreSQL's own scanner (libpg_query), so quotes, dollar quotes and nested comments mean what
they mean to the server. What only psql understands is blanked first: backslash commands, and rows of COPY.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import postgast
from postgast.pg_query_pb2 import Token

from gates.deployment.dialect.tokens import Lexeme, scan
from gates.inputs.strict_yaml import Place
from gates.rehearsal.reading.sources import SqlSource, blank, place_in
from gates.text.characters import one_line

_META = re.compile(r"^\\[A-Za-z.!?;][^\n]*", re.MULTILINE)
_ROWS = re.compile(
    r"^[ \t]*copy\s[^;]*?\sfrom\s+stdin\b[^;\n]*;[^\n]*\n(?P<rows>.*?^\\\.[ \t]*\r?$|\\\.[ \t]*\r?$)",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
_JUNK = re.compile(r"[^\s;'\"$]+")
LONGEST_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Word:
    """A token: where it is in the text, and the text as the server folds it (quoted names keep their letters)."""

    start: int
    end: int
    text: str
    is_text: bool = False
    is_name: bool = False


class Lines:
    def __init__(self, shown: str, text: str) -> None:
        self.shown = shown
        self._starts = [0, *(m.end() for m in re.finditer("\n", text))]

    def place(self, offset: int) -> Place:
        line = bisect_right(self._starts, offset)
        return Place(self.shown, line, offset - self._starts[line - 1] + 1)


@dataclass(frozen=True)
class SqlStatement:
    """One statement as sent, or one psql command (`meta`). `rows`: the rows after COPY ... FROM stdin."""

    text: str
    start: int
    words: tuple[Word, ...]
    lines: Lines
    meta: bool = False
    rows: str | None = None

    def place(self, offset: int = 0) -> Place:
        """The place of a position (from 0) in its text."""
        return self.lines.place(self.start + min(max(offset, 0), len(self.text)))

    @cached_property
    def plain(self) -> tuple[str, ...]:
        """The words in lower case: names and keywords; literals unchanged."""
        return tuple(w.text for w in self.words)

    @property
    def verb(self) -> str:
        return self.plain[0] if self.words else ""

    @property
    def shown(self) -> str:
        return one_line(self.text, LONGEST_SHOWN)

    def find(self, name: str, after: int = 0) -> int | None:
        """The first position of a word in its text, from 0."""
        found = (w.start - self.start for w in self.words if w.text == name and w.start - self.start >= after)
        return next(found, None)


def split(source: SqlSource) -> tuple[SqlStatement, ...]:
    """The statements of a file. Raise ConfigError with the place of an unterminated quote or comment."""
    text, masks = source.text, _masks(source.text)
    while True:
        words = _scan(source.shown, _masked(text, masks))
        inside = {m for m in masks for w in _around(words, m) if w.start < m[0] and w.end > m[1]}
        if not inside:
            return tuple(_statements(source, words, sorted(masks)))
        masks -= inside  # a line inside a string or a function body, which psql ignores


def _masks(text: str) -> set[tuple[int, int]]:
    rows = {m.span("rows") for m in _ROWS.finditer(text)}
    metas = {m.span() for m in _META.finditer(text) if not any(a <= m.start() < b for a, b in rows)}
    return rows | metas


def _masked(text: str, masks: set[tuple[int, int]]) -> str:
    parts, last = [], 0
    for start, end in sorted(masks):
        parts += [text[last:start], blank(text[start:end])]
        last = end
    return "".join([*parts, text[last:]])


def _around(words: Sequence[Word], mask: tuple[int, int]) -> Sequence[Word]:
    index = bisect_right(words, mask[0], key=lambda w: w.start)
    return words[max(0, index - 1) : index]


def _scan(shown: str, text: str) -> list[Word]:
    """The words of the text without its comments."""
    seen, last = text, -1
    while True:
        try:
            return [_word(text, one) for one in scan(seen)]
        except postgast.PgQueryError as error:
            offset = max(error.cursorpos - 1, 0)  # in characters, like the server
            junk = _JUNK.match(seen, offset)
            if junk is None or offset <= last or error.message.startswith("unterminated"):
                what = error.message.partition(" at or near")[0]
                raise place_in(shown, text, offset).error(what, "SQL that can be read", "Correct it") from None
            seen, last = seen[:offset] + "0" * len(junk[0]) + seen[junk.end() :], offset  # the server reports it later


def _word(text: str, one: Lexeme) -> Word:
    raw = text[one.start : one.end]
    if one.kind in {Token.SCONST, Token.USCONST}:
        return Word(one.start, one.end, raw, is_text=True)
    is_name = one.kind == Token.IDENT or raw[:1].isalpha() or raw[:1] == "_"
    return Word(one.start, one.end, one.word or raw.lower(), is_name=is_name)


def _statements(source: SqlSource, words: Sequence[Word], masks: Sequence[tuple[int, int]]) -> Iterator[SqlStatement]:
    lines, text = Lines(source.shown, source.text), source.text
    rows = {start: end for start, end in masks if not text.startswith("\\", start) or text[start:end] == "\\."}
    metas = [m for m in masks if m[0] not in rows]

    def made(group: Sequence[Word]) -> SqlStatement:
        start, end = group[0].start, group[-1].end
        data = next((text[a:b] for a, b in rows.items() if a > end and not text[end:a].strip(" \t\r\n;")), None)
        return SqlStatement(text[start:end], start, tuple(group), lines, rows=data and data[: data.rfind("\\.")])

    for group in _groups(text, words, metas):
        if isinstance(group, tuple):
            yield SqlStatement(text[group[0] : group[1]].rstrip(), group[0], (), lines, meta=True)
        else:
            yield made(group)


def _groups(
    text: str, words: Sequence[Word], metas: Sequence[tuple[int, int]]
) -> Iterator[list[Word] | tuple[int, int]]:
    """The words of each statement without its `;`, and the psql commands between them."""
    group: list[Word] = []
    parens = atomic = skip_to = 0
    waiting = list(metas)
    for index, word in enumerate(words):
        if not group:
            while waiting and waiting[0][0] < word.start:
                yield waiting.pop(0)
        if word.start < skip_to:
            continue
        parens += {"(": 1, ")": -1}.get(word.text, 0) if not word.is_text else 0
        if word.text == "begin" and index + 1 < len(words) and words[index + 1].text == "atomic":
            atomic = 1
        elif atomic and word.text in {"case", "end"} and not word.is_text:
            atomic += 1 if word.text == "case" else -1
        if word.text == "\\":  # \gset, \gexec, \g after a query end it
            skip_to = text.find("\n", word.start) % (len(text) + 1)
            if group:
                yield group
            yield word.start, skip_to
        elif word.text != ";" or parens > 0 or atomic:
            group.append(word)
            continue
        elif group:
            yield group
        group, parens, atomic = [], 0, 0
    if group:
        yield group
    yield from waiting
