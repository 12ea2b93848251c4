"""A statement as tokens, each of which can be replaced; everything else stays byte for byte. The tokens are those of
PostgreSQL's own scanner (libpg_query).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import postgast
import psycopg
from postgast.pg_query_pb2 import KeywordKind, Token
from psycopg.sql import Identifier

from gates.errors import first_line

_COMMENTS = {Token.SQL_COMMENT, Token.C_COMMENT}
_VALUES = {Token.SCONST, Token.USCONST, Token.BCONST, Token.XCONST, Token.ICONST, Token.FCONST}
_FREE = {KeywordKind.NO_KEYWORD, KeywordKind.UNRESERVED_KEYWORD}
"""Words that may name a column or a table without quotes."""
_NO_ALIAS = {"set", "overriding"}
"""Words that may be names, but continue the statement where one could stand."""
_PLACEHOLDER = re.compile(r"%%|%(?:\((?P<name>[^)]+)\))?[sbt](?![\w$])")
_STRING = re.compile(r"(?:[eE]?'(?P<text>.*)'|(?P<tag>\$[^$]*\$)(?P<raw>.*)(?P=tag))", re.DOTALL)
_SIMPLE = re.compile(r"[a-z_][a-z0-9_]*\Z")
_MARK = re.compile("\0([0-9]+)\0")

Values = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A placeholder of the statement: its position (`%s`) or name (`%(name)s`), and how its values are converted."""

    key: int | str
    values: Values = field(default_factory=dict)

    def of(self, given: Any) -> Any:
        """The value to send, from the given parameters."""
        value = given[self.key]
        return self.values.get(value, value) if self.values and isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Lexeme:
    """A token and its position in the text; `word`: as the server folds it, empty for values and placeholders."""

    kind: int
    start: int
    end: int
    word: str
    keyword: int


def scan(text: str) -> list[Lexeme]:
    """The tokens of a text without its comments. Raise postgast.PgQueryError."""
    if text.isascii():
        found = [(t, t.start, t.end) for t in postgast.scan(text).tokens]
    else:
        character = [i for i, c in enumerate(text) for _ in range(len(c.encode()))] + [len(text)]  # of each byte
        found = [(t, character[t.start], character[t.end]) for t in postgast.scan(text).tokens]
    words = (Lexeme(t.token, a, b, _word(t.token, text[a:b]), t.keyword_kind) for t, a, b in found)
    return [one for one in words if one.kind not in _COMMENTS]


def _word(kind: int, raw: str) -> str:
    if kind in _VALUES:
        return ""
    return raw[1:-1].replace('""', '"') if raw.startswith('"') else raw.lower()


class Statement:
    """The tokens of one statement; `write` replaces them, `finished` gives the result. Raise psycopg.errors.SyntaxError
    for what is no SQL, as the server would.
    """

    def __init__(self, text: str) -> None:
        self.source = text
        try:
            self.tokens = scan(_PLACEHOLDER.sub(_as_parameter, text))
        except postgast.PgQueryError as error:
            raise psycopg.errors.SyntaxError(f"the statement cannot be read: {first_line(error)}") from error
        self._new: dict[int, str] = {}
        self._parameters: list[Parameter] = []
        self.words = [t.word for t in self.tokens]
        self._mark_parameters()

    def __len__(self) -> int:
        return len(self.tokens)

    def word(self, at: int) -> str:
        """The word or sign at a position; in lower case unless quoted; empty for a value and beyond the ends."""
        return self.words[at] if 0 <= at < len(self.words) else ""

    def is_quoted(self, at: int) -> bool:
        return self._text(at).startswith('"')

    def is_name(self, at: int) -> bool:
        if not 0 <= at < len(self):
            return False
        one = self.tokens[at]
        return one.kind == Token.IDENT or (one.keyword == KeywordKind.UNRESERVED_KEYWORD and one.word not in _NO_ALIAS)

    def string(self, at: int) -> str | None:
        is_string = 0 <= at < len(self) and self.tokens[at].kind == Token.SCONST
        found = _STRING.fullmatch(self._text(at)) if is_string else None
        return None if found is None else found["raw"] if found["tag"] else found["text"].replace("''", "'")

    def _text(self, at: int) -> str:
        return self.source[self.tokens[at].start : self.tokens[at].end]

    def write(self, first: int, last: int, text: str) -> None:
        """Replace these tokens, and what is between them, by a text."""
        for at in range(first, last + 1):
            self._new[at] = ""
        self._new[first] = text

    def render(self, first: int = 0, last: int | None = None) -> str:
        """The present text of these tokens; parameters as marks."""
        last = len(self) - 1 if last is None else last
        parts: list[str] = []
        for at in range(first, last + 1):
            parts.append(self._new.get(at, self._text(at)))
            if at < last and not self._joined(at):
                parts.append(self._between(self.tokens[at].end, self.tokens[at + 1].start))
        return "".join(parts)

    def _between(self, start: int, end: int) -> str:
        """The text between tokens. Comments are dropped: the driver would take a parameter in one for a real one."""
        text = self.source[start:end]
        return text.replace("%", "") if self._parameters else text

    def _joined(self, at: int) -> bool:
        """Whether no source text is left between a token and the next: both were replaced together."""
        return self._new.get(at + 1) == ""

    # --- parameters ----------------------------------------------------------------------------------------------

    def _mark_parameters(self) -> None:
        """Make each placeholder one replaceable token: its value moves with it."""
        count = 0
        for at in range(len(self)):
            found = _PLACEHOLDER.fullmatch(self._text(at))
            if found and found[0] != "%%":
                self.write(at, at, self.mark(Parameter(found["name"] or count)))
                count += found["name"] is None
                self.words[at] = ""

    def mark(self, parameter: Parameter) -> str:
        """The mark of a parameter in a replaced text."""
        self._parameters.append(parameter)
        return f"\0{len(self._parameters) - 1}\0"

    def parameter(self, text: str) -> Parameter | None:
        """The parameter that a replaced text consists of, or None."""
        found = _MARK.fullmatch(text.strip())
        return self._parameters[int(found[1])] if found else None

    def finished(self) -> tuple[str, tuple[Parameter, ...]]:
        """The statement with `%s` for every parameter, and the parameters in order."""
        text = self.source
        if self.tokens:
            first, last = self.tokens[0].start, self.tokens[-1].end
            text = self._between(0, first) + self.render() + self._between(last, len(text))
        used = tuple(self._parameters[int(m[1])] for m in _MARK.finditer(text))
        return _MARK.sub("%s", text), used

    # --- structure -----------------------------------------------------------------------------------------------

    def closing(self, at: int) -> int:
        """The position of the bracket that closes the one at `at`."""
        depth = 0
        for place in range(at, len(self)):
            depth += self.word(place) in {"(", "["}
            depth -= self.word(place) in {")", "]"}
            if depth == 0:
                return place
        return len(self) - 1

    def top(self, first: int, last: int) -> Iterator[int]:
        """The positions of this range outside its brackets (an opening bracket itself counts as outside)."""
        at = first
        while at <= last:
            yield at
            at = self.closing(at) + 1 if self.word(at) in {"(", "["} else at + 1

    def find(self, words: set[str], first: int, last: int) -> int:
        """The first position outside brackets with one of these words; one past the range if there is none."""
        return next((at for at in self.top(first, last) if self.word(at) in words), last + 1)

    def split(self, first: int, last: int) -> list[tuple[int, int]]:
        """The parts of a range between commas outside brackets."""
        if first > last:
            return []
        commas = [at for at in self.top(first, last) if self.word(at) == ","]
        return list(zip([first, *(c + 1 for c in commas)], [*(c - 1 for c in commas), last], strict=True))

    def part_of_union(self, at: int) -> tuple[int, int]:
        """The positions from the UNION before the part around `at` to the end of that part; (0, 0) for a first part."""
        depth, first = 0, 0
        for place in range(at, -1, -1):
            depth += self.word(place) in {")", "]"}
            depth -= self.word(place) in {"(", "["}
            if depth < 0:
                break
            if depth == 0 and self.word(place) == "union":
                first = place
                break
        end = self.end_of_query(at)
        last = self.find({"union", "order", "limit", "offset", "fetch"}, at, end) - 1
        return (first, last) if first else (0, 0)

    def end_of_query(self, at: int) -> int:
        """The last position of the query around `at`: before the bracket that closes it, or the end."""
        depth = 0
        for place in range(at, len(self)):
            depth += self.word(place) in {"(", "["}
            depth -= self.word(place) in {")", "]"}
            if depth < 0 or (depth == 0 and self.word(place) == ";"):
                return place - 1
        return len(self) - 1


def _as_parameter(found: re.Match[str]) -> str:
    """A stand-in of the same length that scans as one token and does not join an operator before it."""
    return found[0] if found[0] == "%%" else f"${1:0{len(found[0]) - 1}}"


@cache
def quoted(name: str) -> str:
    """A name in SQL, quoted unless it is plain and no keyword."""
    plain = _SIMPLE.match(name) and scan(name)[0].keyword in _FREE
    return name if plain else Identifier(name).as_string()


def literal(text: str) -> str:
    """A text as a SQL string."""
    return "'" + text.replace("'", "''") + "'"
