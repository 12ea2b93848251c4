r"""Whether a file of checks fails when what it checks is broken. Rows alone do not: psql prints them and exits with 0.

psql's own ways were tried: an error ends it with exit code 3 under ON_ERROR_STOP alone; `\q` always ends it with 0.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gates.inputs.strict_yaml import Place
from gates.rehearsal.obstacles import at
from gates.rehearsal.rewriting import variable_of
from gates.rehearsal.splitting import SqlStatement, Word

_RAISES = re.compile(r"\braise\b(?!\s+(?:debug|log|info|notice|warning)\b)|\bassert\b", re.IGNORECASE)
_QUITS = re.compile(r"\\q(?:uit)?\b\s*(\d*)")
_NUMBER = re.compile(r"[\d_.]+(?:e[+-]?\d+)?")
_READS = {"select", "with", "values", "table", "execute"}
_NUMBERS = {
    "int",
    "integer",
    "bigint",
    "smallint",
    "int4",
    "int8",
    "int2",
    "numeric",
    "boolean",
    "bool",
    "uuid",
    "date",
}


@dataclass(frozen=True, slots=True)
class BreachView:
    """What a breach does. `seen`: False where the file ends with exit code 0 anyway, None where it checks nothing."""

    seen: bool | None
    said: str
    remedy: str = ""
    place: Place | None = None


def breach_view(statements: Sequence[SqlStatement], raising: frozenset[str]) -> BreachView:
    """`raising`: functions of the schema whose bodies raise an error."""
    ends = [(s, how) for s in statements if not s.meta and (how := _ends(s, raising))]
    stops = False
    first = ends[0][0].start if ends else 0
    for one in statements:
        name, value = (variable_of(one) or ("", "")) if one.meta else ("", "")
        if name == "ON_ERROR_STOP" and one.start <= first:
            stops = value.lower() in {"", "on", "1", "true", "yes"}
    quits = [s for s in statements if s.meta and _QUITS.match(s.text)]
    if ends and stops:
        return BreachView(True, f"a breach makes the file fail: {ends[0][1]} at {at(ends[0][0].place())}")
    if ends:
        return BreachView(
            False,
            f"a breach would go unseen with plain psql: {ends[0][1]} at {at(ends[0][0].place())}, but psql goes on and "
            "exits with 0",
            r"Put \set ON_ERROR_STOP on at the top, or run psql -v ON_ERROR_STOP=1",
            ends[0][0].place(),
        )
    if not any(s.verb in _READS for s in statements):
        return BreachView(None, "it reads nothing, so it checks nothing")
    do = r"Raise an error where there is a breach: \set ON_ERROR_STOP on, and a DO block with RAISE EXCEPTION"
    if quits:
        said = rf"a breach would go unseen: {quits[0].text} ends psql with exit code 0, whatever stands behind it"
        return BreachView(False, said, do, quits[0].place())
    reads = next(s for s in statements if s.verb in _READS)
    return BreachView(False, "a breach would go unseen: nothing makes this file fail", do, reads.place())


def _ends(statement: SqlStatement, raising: frozenset[str]) -> str:
    """How a statement can end in an error of its own making."""
    bodies = [w.text for w in statement.words if w.is_text and w.text.startswith("$")]
    if statement.verb == "do":
        found = next((m for body in bodies for m in _RAISES.finditer(_without_comments(body))), None)
        return f"{found[0].upper()} in a DO block" if found else ""
    if statement.verb not in _READS:
        return ""
    words = statement.words
    for word, after in itertools.pairwise(words):
        if word.text == "/" and _may_be_zero(after):
            return "a division by what may be zero"
        if word.text in raising and after.text == "(":
            return f"{word.text}() raises an error"
    return ""


def _may_be_zero(word: Word) -> bool:
    return not _NUMBER.fullmatch(word.text) or not word.text.strip("0._")


def _without_comments(body: str) -> str:
    return re.sub(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", " ", body, flags=re.DOTALL)
