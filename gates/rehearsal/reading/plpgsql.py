"""The structure of a PL/pgSQL body: its variables with types, and its queries and expressions.

The parser knows no catalogue: it refuses fields of `%rowtype` variables, types of other schemas, and more. So it reads
a copy in which variables are texts, or records if a field of theirs is named; the types come from the declarations.
"""

import itertools
import json
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import postgast
from postgast.pg_query_pb2 import FunctionParameterMode

from gates.rehearsal.reading.rewriting import rewrite
from gates.rehearsal.reading.sources import SqlSource
from gates.rehearsal.reading.splitting import SqlStatement, Word, split

_NAMELESS_DATUMS = re.compile(r"(?:\{\}\},)+")
"""How the parser prints variables that a trigger fills: as JSON with one `}` too many."""
_ENDS_TYPE = {":=", "=", "default", "not", "collate"}
_NO_TYPE = {"cursor", "no", "scroll"}


class UnreadBodyError(Exception):
    """The parser's own message about a body that it cannot read."""


@dataclass(frozen=True, slots=True)
class BodyQuery:
    """One query or expression of a body: its text, the line of its statement (from 1), how it is parsed."""

    text: str
    line: int
    mode: int

    @property
    def as_statement(self) -> tuple[str, int]:
        """Equivalent SQL, and how many characters of it precede the text; an assignment has a target and a value."""
        if self.mode == 0:
            return self.text, 0
        text = self.text
        if self.mode > 2:
            sign = ":=" if ":=" in text else "="
            text = text.replace(sign, ",".rjust(len(sign)), 1)
        return f"select {text}", len("select ")


@dataclass
class ParsedBody:
    """The variables with types ('' for a record with unknown columns), aliases of variables (`$1` or a name), the
    queries, the names of blocks and of temporary tables.
    """

    variables: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    queries: list[BodyQuery] = field(default_factory=list)
    temporary: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)


def body_span(statement: SqlStatement) -> tuple[int, int] | None:
    """The start and end of the body in the text of a statement; None if quotes inside it are doubled."""
    before = ""
    for word in statement.words:
        if word.is_text and word.text.startswith("$"):
            tag = word.text.index("$", 1) + 1
            return word.start - statement.start + tag, word.end - statement.start - tag
        if word.is_text and word.text.startswith("'") and "'" not in word.text[1:-1] and before in {"as", "do"}:
            return word.start - statement.start + 1, word.end - statement.start - 1
        before = word.text
    return None


@dataclass(frozen=True, slots=True)
class ReadableBody:
    """A statement with the same body, line by line, that the parser can read; its variables' types, and its aliases."""

    text: str
    types: dict[str, str]
    aliases: dict[str, str]


def tree_of(statement: SqlStatement) -> tuple[list[dict[str, Any]], ReadableBody]:
    """The parser's tree of a CREATE FUNCTION or DO statement. Raise UnreadBodyError.

    A name before a dot is a variable with fields, or the alias of a table; a plain variable may have the name of that
    alias. Both readings are tried; the error is that of the first.
    """
    body = _readable(statement)
    try:
        return _parsed(body.text), body
    except UnreadBodyError:
        plain = _readable(statement, rows=frozenset())
        with suppress(UnreadBodyError):
            return _parsed(plain.text), plain
        raise


def _parsed(text: str) -> list[dict[str, Any]]:
    try:
        return list(postgast.parse_plpgsql(text))
    except json.JSONDecodeError as error:
        try:
            return list(json.loads(_NAMELESS_DATUMS.sub("", error.doc, count=1)))
        except json.JSONDecodeError:
            raise UnreadBodyError("its structure cannot be told") from None
    except postgast.PgQueryError as error:
        raise UnreadBodyError(error.message) from None


def _readable(statement: SqlStatement, rows: Collection[str] | None = None) -> ReadableBody:
    """rows: the names of variables that have fields; None: all names before a dot."""
    span = body_span(statement)
    if span is None:
        raise UnreadBodyError("no body in dollar quotes")
    body = statement.text[slice(*span)]
    parts = split(SqlSource("", body))
    if rows is None:
        rows = {a.text for s in parts for a, dot in itertools.pairwise(s.words) if dot.text == "." and not a.is_text}
    types: dict[str, str] = {}
    aliases: dict[str, str] = {}
    changes: list[tuple[int, int, str]] = []
    for name, kind in _declarations(parts):
        first, last = kind[0].start, kind[-1].end
        words = [w.text for w in kind]
        if words[:2] == ["alias", "for"]:
            aliases[name] = words[-1]
            continue
        if words[-1] == "type" and "%" in words:
            continue
        row = len(kind) > 2 and words[-2:] == ["%", "rowtype"]
        known = body[first : kind[-3].end if row else last]
        types[name] = "" if known.lower() == "record" or types.get(name, known) != known else known
        if known.lower() not in {"record", "refcursor"}:
            stand_in = "record" if name in rows else "text"  # the parser only needs to know whether it has fields
            changes.append((first, last, stand_in + "\n" * body[first:last].count("\n")))
    text = f"{_head(statement, rows)} $rehearsal${rewrite(body, changes).text}$rehearsal$"
    return ReadableBody(text, types, aliases)


def _head(statement: SqlStatement, rows: Collection[str]) -> str:
    """The text before the body, with types that the parser knows."""
    if statement.verb == "do":
        return "do"
    try:
        made = postgast.parse(statement.text).stmts[0].stmt.create_function_stmt
    except postgast.PgQueryError as error:
        raise UnreadBodyError(error.message) from None
    given, columns, out = list[str](), list[str](), list[str]()
    for one in (p.function_parameter for p in made.parameters):
        mode = _MODES.get(FunctionParameterMode.Name(one.mode), "in")
        kind = "rehearsal_row" if one.name in rows else "text"  # no type of this name: some row
        if one.arg_type.names[-1].string.sval == "refcursor":
            kind = "refcursor"
        out += [kind] * (mode in {"out", "inout"})
        name = f'"{one.name}"' if one.name else ""
        (columns if mode == "table" else given).append(f"{'' if mode == 'table' else mode} {name} {kind}")
    head = f"create {'procedure' if made.is_procedure else 'function'} rehearsal({', '.join(given)})"
    returned = made.return_type.names[-1].string.sval if made.return_type.names else ""
    if columns:
        return f"{head} returns table ({', '.join(columns)}) language plpgsql as"
    if not returned or (out and not made.return_type.setof):
        return f"{head} language plpgsql as"
    if out:
        returned = out[0] if len(out) == 1 else "record"
    elif returned not in _RETURNED:
        returned = "text"
    return f"{head} returns {'setof ' * made.return_type.setof}{returned} language plpgsql as"


_MODES = {"FUNC_PARAM_OUT": "out", "FUNC_PARAM_INOUT": "inout", "FUNC_PARAM_TABLE": "table"}
_RETURNED = {"trigger", "event_trigger", "void", "record"}


def _declarations(statements: Sequence[SqlStatement]) -> Iterator[tuple[str, list[Word]]]:
    """Each declared variable with the words of its type: the text from DECLARE to BEGIN, split at each `;`."""
    inside = False
    for statement in statements:
        group = list[Word]()
        for word in statement.words:
            if word.text in {"declare", "begin"} and not word.is_text:
                inside, group = word.text == "declare", []
            elif inside:
                group.append(word)
        yield from _declaration(group)


def _declaration(group: list[Word]) -> Iterator[tuple[str, list[Word]]]:
    kind = group[2:] if len(group) > 1 and group[1].text == "constant" else group[1:]
    end = next((i for i, w in enumerate(kind) if w.text in _ENDS_TYPE), len(kind))
    if kind[:end] and kind[0].text not in _NO_TYPE:
        yield group[0].text, kind[:end]


def parse_body(statement: SqlStatement) -> ParsedBody:
    """The body of a CREATE FUNCTION or DO statement. Raise UnreadBodyError."""
    tree, read = tree_of(statement)
    body = ParsedBody(aliases=read.aliases)
    for one in tree:
        function = one["PLpgSQL_function"]
        for datum in function.get("datums", ()):
            _add_variable(body, datum)
        body.queries += _queries(function.get("action", {}), 1)
    body.variables |= {name: kind for name, kind in read.types.items() if name in body.variables}
    body.temporary |= {
        m[1].lower()
        for q in body.queries
        for m in re.finditer(r"\b(?:temp|temporary)\s+table\s+(?:if\s+not\s+exists\s+)?(\w+)", q.text, re.IGNORECASE)
    }
    body.labels |= {m[1].lower() for m in re.finditer(r"<<\s*(\w+)\s*>>", read.text)}
    return body


def _add_variable(body: ParsedBody, datum: dict[str, Any]) -> None:
    if variable := datum.get("PLpgSQL_var"):
        name, kind = variable["refname"], variable.get("datatype", {}).get("PLpgSQL_type", {}).get("typname", "")
        body.variables[name] = "" if body.variables.get(name, kind) != kind else kind
        default = variable.get("default_val") or variable.get("cursor_explicit_expr")
        if default and "PLpgSQL_expr" in default:
            expression = default["PLpgSQL_expr"]
            body.queries.append(BodyQuery(expression["query"], variable.get("lineno", 1), expression["parseMode"]))
    elif record := datum.get("PLpgSQL_rec"):
        body.variables[record["refname"]] = ""


def _queries(node: Any, line: int) -> Iterator[BodyQuery]:
    if isinstance(node, list):
        for one in node:
            yield from _queries(one, line)
    elif isinstance(node, dict):
        line = node.get("lineno", line)
        for name, value in node.items():
            if name == "PLpgSQL_expr":
                yield BodyQuery(value["query"], line, value.get("parseMode", 0))
            elif name != "PLpgSQL_stmt_dynexecute":
                yield from _queries(value, line)
