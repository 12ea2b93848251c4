"""A statement as tokens, each of which can be written otherwise; whatever is not touched stays byte for byte."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import psycopg
from psycopg.sql import Identifier
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import Token, TokenType

from gates.errors import first_line

STRINGS = frozenset({TokenType.STRING, TokenType.HEREDOC_STRING, TokenType.RAW_STRING, TokenType.BYTE_STRING})
_NO_WORD = STRINGS | {TokenType.NUMBER}
_SIMPLE = re.compile(r"[a-z_][a-z0-9_]*\Z")
_MARK = re.compile("\0([0-9]+)\0")

Values = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A placeholder of the statement: its place (`%s`) or its name (`%(name)s`), and what its values become."""

    key: int | str
    values: Values = field(default_factory=dict)

    def of(self, given: Any) -> Any:
        """The value to send, from the parameters that were given."""
        value = given[self.key]
        return self.values.get(value, value) if self.values and isinstance(value, str) else value


class _Tokenizer(Postgres.Tokenizer):
    """No word makes the rest of a statement one token."""

    COMMANDS: ClassVar[set[TokenType]] = set()


class Statement:
    """The tokens of one statement; `write` says what stands in their place, `finished` gives the result.

    Raise psycopg.errors.SyntaxError for what is no SQL, as the server would.
    """

    def __init__(self, text: str) -> None:
        self.source = text
        try:
            self.tokens: list[Token] = _Tokenizer().tokenize(text)
        except SqlglotError as error:
            raise psycopg.errors.SyntaxError(f"the statement cannot be read: {first_line(error)}") from error
        self._new: dict[int, str] = {}
        self._parameters: list[Parameter] = []
        self.words = [self._word(t) for t in self.tokens]
        self._mark_parameters()

    def __len__(self) -> int:
        return len(self.tokens)

    @staticmethod
    def _word(token: Token) -> str:
        if token.token_type in _NO_WORD:
            return ""
        if token.token_type is TokenType.IDENTIFIER:
            return token.text
        return token.text.lower().partition(" ")[0]  # `group by` and the like are one token

    def word(self, at: int) -> str:
        """The word or sign at a place; in lower case unless it is quoted; empty for a value and beyond the ends."""
        return self.words[at] if 0 <= at < len(self.words) else ""

    def is_quoted(self, at: int) -> bool:
        return self.tokens[at].token_type is TokenType.IDENTIFIER

    def is_name(self, at: int) -> bool:
        """Whether a name stands there which is no word of the language."""
        return 0 <= at < len(self) and self.tokens[at].token_type in {TokenType.VAR, TokenType.IDENTIFIER}

    def string(self, at: int) -> str | None:
        """The text of a string, or None."""
        token = self.tokens[at] if 0 <= at < len(self) else None
        return token.text if token is not None and token.token_type in STRINGS else None

    def write(self, first: int, last: int, text: str) -> None:
        """Put a text in the place of these tokens and of what is between them."""
        for at in range(first, last + 1):
            self._new[at] = ""
        self._new[first] = text

    def render(self, first: int = 0, last: int | None = None) -> str:
        """The text of these tokens as they are written by now; parameters as marks."""
        last = len(self) - 1 if last is None else last
        parts: list[str] = []
        for at in range(first, last + 1):
            token = self.tokens[at]
            parts.append(self._new.get(at, self.source[token.start : token.end + 1]))
            if at < last and not self._joined(at):
                parts.append(self._between(token.end + 1, self.tokens[at + 1].start))
        return "".join(parts)

    def _between(self, start: int, end: int) -> str:
        """What stands between tokens. A comment may speak of a parameter, which the driver would take for one."""
        text = self.source[start:end]
        return text.replace("%", "") if self._parameters else text

    def _joined(self, at: int) -> bool:
        """Whether nothing of the source stands between a token and the next: both were written over together."""
        return self._new.get(at + 1) == ""

    # --- parameters ----------------------------------------------------------------------------------------------

    def _mark_parameters(self) -> None:
        """Each placeholder becomes one token to be written: where it goes, its value goes."""
        count, at = 0, 0
        while at < len(self):
            last = self._placeholder_end(at)
            if last and self.word(at + 1) == "%":
                at = last
            elif last:
                named = self.word(at + 1) == "("
                key: int | str = self.tokens[at + 2].text if named else count
                count += not named
                self.write(at, last, self.mark(Parameter(key)))
                self.words[at : last + 1] = [""] * (last + 1 - at)  # its name is no column
                at = last
            at += 1

    def _placeholder_end(self, at: int) -> int:
        """The last token of a placeholder (or of `%%`) that begins here; 0 where none does."""
        if self.word(at) != "%":
            return 0
        close = self.tokens[at].end + 1
        if self.word(at + 1) == "%" and self.tokens[at + 1].start == close:
            return at + 1
        if self.word(at + 1) in {"s", "b", "t"} and self.tokens[at + 1].start == close:
            return at + 1
        named = self.word(at + 1) == "(" and self.word(at + 3) == ")" and self.word(at + 4) in {"s", "b", "t"}
        return at + 4 if named and self.tokens[at + 1].start == close else 0

    def mark(self, parameter: Parameter) -> str:
        """What stands for a parameter in a text that is written."""
        self._parameters.append(parameter)
        return f"\0{len(self._parameters) - 1}\0"

    def parameter(self, text: str) -> Parameter | None:
        """The parameter that a written text consists of, or None."""
        found = _MARK.fullmatch(text.strip())
        return self._parameters[int(found[1])] if found else None

    def finished(self) -> tuple[str, tuple[Parameter, ...]]:
        """The statement with `%s` for every parameter, and the parameters in their order."""
        text = self.source
        if self.tokens:
            first, last = self.tokens[0].start, self.tokens[-1].end + 1
            text = self._between(0, first) + self.render() + self._between(last, len(text))
        used = tuple(self._parameters[int(m[1])] for m in _MARK.finditer(text))
        return _MARK.sub("%s", text), used

    # --- structure -----------------------------------------------------------------------------------------------

    def closing(self, at: int) -> int:
        """The place of the bracket that closes the one at `at`."""
        depth = 0
        for place in range(at, len(self)):
            depth += self.word(place) in {"(", "["}
            depth -= self.word(place) in {")", "]"}
            if depth == 0:
                return place
        return len(self) - 1

    def top(self, first: int, last: int) -> Iterator[int]:
        """The places of this range that are in no bracket of it (an opening bracket itself is)."""
        at = first
        while at <= last:
            yield at
            at = self.closing(at) + 1 if self.word(at) in {"(", "["} else at + 1

    def find(self, words: set[str], first: int, last: int) -> int:
        """The first place in no bracket where one of these words stands; one after the range where none does."""
        return next((at for at in self.top(first, last) if self.word(at) in words), last + 1)

    def split(self, first: int, last: int) -> list[tuple[int, int]]:
        """The parts of a range between commas that are in no bracket."""
        if first > last:
            return []
        commas = [at for at in self.top(first, last) if self.word(at) == ","]
        return list(zip([first, *(c + 1 for c in commas)], [*(c - 1 for c in commas), last], strict=True))

    def part_of_union(self, at: int) -> tuple[int, int]:
        """The places from the UNION before the part around `at` to the end of that part; (0, 0) for a first part."""
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
        """The last place of the query that `at` is in: before the bracket that closes it, or the end."""
        depth = 0
        for place in range(at, len(self)):
            depth += self.word(place) in {"(", "["}
            depth -= self.word(place) in {")", "]"}
            if depth < 0 or (depth == 0 and self.word(place) == ";"):
                return place - 1
        return len(self) - 1


@cache
def quoted(name: str) -> str:
    """A name as SQL has it; quoted unless it is plain and no word of the language."""
    plain = _SIMPLE.match(name) and Postgres.Tokenizer().tokenize(name)[0].token_type is TokenType.VAR
    return name if plain else Identifier(name).as_string()


def literal(text: str) -> str:
    """A text as a SQL string."""
    return "'" + text.replace("'", "''") + "'"
