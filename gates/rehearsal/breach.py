r"""Whether a file of checks fails when what it checks is broken. Rows alone do not: psql prints them and exits with 0.

psql's own ways were tried: an error ends it with exit code 3 under ON_ERROR_STOP alone; `\q` always ends it with 0.
"""

import itertools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from gates.inputs.strict_yaml import Place
from gates.rehearsal.obstacles import at
from gates.rehearsal.reading.raising import how_it_only_tells, how_it_raises
from gates.rehearsal.reading.rewriting import variable_of
from gates.rehearsal.reading.skipping import unseen
from gates.rehearsal.reading.splitting import SqlStatement, Word

_TELLS = tuple(f"RAISE {level}" for level in ("DEBUG", "LOG", "INFO", "NOTICE", "WARNING"))
_QUITS = re.compile(r"\\q(?:uit)?\b\s*(\d*)")
_NUMBER = re.compile(r"[\d_.]+(?:e[+-]?\d+)?")
_READS = {"select", "with", "values", "table", "execute"}


@dataclass(frozen=True, slots=True)
class BreachView:
    """The effect of a breach. `seen`: False if the file ends with exit code 0 anyway, None if it checks nothing."""

    seen: bool | None
    said: str
    remedy: str = ""
    place: Place | None = None


def breach_view(statements: Sequence[SqlStatement], raising: frozenset[str]) -> BreachView:
    """`raising`: functions of the schema whose bodies raise an error."""
    ends, stops = [], False
    names = set(raising)
    for one in statements:
        if one.meta:
            stops = _stops(one, stops)
        elif name := _makes_raising(one):
            names.add(name)
        elif how := _ends(one, names):
            ends.append((one, how, stops))
    passed = next(((s, how) for s, how, stopping in ends if not stopping), None)
    if passed:
        return BreachView(
            False,
            f"a breach would go unseen with plain psql: {passed[1]} at {at(passed[0].place())}, but psql goes on and "
            "exits with 0",
            r"Put \set ON_ERROR_STOP on at the top, or run psql -v ON_ERROR_STOP=1",
            passed[0].place(),
        )
    if ends:
        return BreachView(True, f"a breach makes the file fail: {ends[0][1]} at {at(ends[0][0].place())}")
    return _unseen(statements)


def _unseen(statements: Sequence[SqlStatement]) -> BreachView:
    """The result for a file in which no statement of its own can fail."""
    told = next(((s, how) for s in statements if s.verb == "do" and (how := how_it_only_tells(s))), None)
    reads = next((s for s in statements if s.verb in _READS), None)
    do = r"Raise an error where there is a breach: \set ON_ERROR_STOP on, and a DO block with RAISE EXCEPTION"
    if (quits := next((s for s in statements if s.meta and _QUITS.match(s.text)), None)) and (reads or told):
        said = rf"a breach would go unseen: {quits.text} ends psql with exit code 0, whatever stands behind it"
        return BreachView(False, said, do, quits.place())
    if told:
        why = "makes nothing fail" if told[1].startswith(_TELLS) else "is caught, or never reached"
        said = f"a breach would go unseen: the {told[1]} at {at(told[0].place())} {why}"
        return BreachView(False, said, do, told[0].place())
    if reads:
        return BreachView(False, "a breach would go unseen: nothing makes this file fail", do, reads.place())
    if unseen(statements):
        return BreachView(None, "what it checks stands in what it brings in, which was not read")
    return BreachView(None, "it reads nothing, so it checks nothing")


def _stops(meta: SqlStatement, stops: bool) -> bool:
    """Whether psql ends at an error after this command."""
    if re.match(r"\\unset\s+ON_ERROR_STOP\b", meta.text):
        return False
    name, value = variable_of(meta) or ("", "")
    return value.lower() in {"", "on", "1", "true", "yes"} if name == "ON_ERROR_STOP" else stops


def _makes_raising(statement: SqlStatement) -> str:
    """The name of the function that a statement creates, if it raises an error."""
    words = statement.plain
    if statement.verb != "create" or not {"function", "procedure"} & set(words[1:4]) or "(" not in words:
        return ""
    return words[words.index("(") - 1] if how_it_raises(statement) else ""


def _ends(statement: SqlStatement, raising: Collection[str]) -> str:
    """How a statement can deliberately end in an error."""
    if statement.verb == "do":
        how = how_it_raises(statement)
        return f"{how} in a DO block" if how else ""
    if statement.verb not in _READS:
        return ""
    words = statement.words
    for index, (word, after) in enumerate(itertools.pairwise(words)):
        if word.text == "/" and not word.is_text and _may_be_zero(words[index + 1 :]):
            return "a division by what may be zero"
        if word.text in raising and after.text == "(":
            return f"{word.text}() raises an error"
    return ""


def _may_be_zero(divisor: Sequence[Word]) -> bool:
    """Whether the text after `/` can be 0: numbers other than 0, nullif(x, 0) and greatest(x, 1) cannot."""
    first = divisor[0]
    if _NUMBER.fullmatch(first.text):
        return not first.text.strip("0._")
    inside = _arguments(divisor if first.text == "(" else divisor[1:])
    if first.text == "(" and len(inside) == 1:
        return any(w.text != "*" and _may_be_zero([w]) for w in inside[0])
    last = inside[-1] if inside else ()
    number = last[0].text if len(last) == 1 and _NUMBER.fullmatch(last[0].text) else ""
    zero = not number.strip("0._")
    if first.text == "nullif":
        return not (number and zero)
    if first.text == "coalesce":
        return not number or zero or any(_may_be_zero(one) for one in inside[:-1])
    positive = [a for a in inside if len(a) == 1 and _NUMBER.fullmatch(a[0].text) and a[0].text.strip("0._")]
    return not (first.text == "greatest" and positive)


def _arguments(words: Sequence[Word]) -> list[list[Word]]:
    """The words of each argument in the parentheses that these words begin with."""
    found, depth = [[]], 0  # type: list[list[Word]], int
    for word in words:
        text = "" if word.is_text else word.text
        depth += {"(": 1, ")": -1}.get(text, 0)
        if depth == 0:
            return [one for one in found if one]
        if depth == 1 and text == ",":
            found.append([])
        elif depth > 1 or text != "(":
            found[-1].append(word)
    return []
