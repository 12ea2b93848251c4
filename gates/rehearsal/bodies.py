"""Looks into PL/pgSQL bodies, whose SQL the server reads only when it runs.

Each statement of a body becomes, for a moment, the body of an SQL function whose parameters are the variables: so the
server resolves every name and type in it, and says where one is wrong. What depends on a record whose columns are not
known, or is built at run time (EXECUTE), is not looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import postgast
import psycopg
from psycopg import sql

from gates.rehearsal.execution import Failure, failure_of
from gates.rehearsal.explanation import body_of, line_of_body, place_in_body
from gates.rehearsal.splitting import SqlStatement

_NAMELESS_DATUMS = re.compile(r"(?:,\{\}\})+")
"""How the parser writes the ten variables that a trigger fills when it fires: as JSON with a `}` too many."""
JUDGED = {"42P01", "42703", "42883", "42704", "3F000", "42P02"}
"""A name that is not there. Other errors may come from the way in which a body is looked at."""
OF_TRIGGERS = {
    **dict.fromkeys(("tg_name", "tg_table_name", "tg_table_schema", "tg_relname"), "name"),
    **dict.fromkeys(("tg_when", "tg_level", "tg_op", "tg_event", "tg_tag"), "text"),
    "tg_relid": "oid",
    "tg_nargs": "integer",
    "tg_argv": "text[]",
}
MOST_TABLES = 8
"""Of one trigger function; for each of them NEW and OLD are other rows."""
CATALOGUE = """
select coalesce(array_agg(t.tgrelid::regclass::text) filter (where t.oid is not null), '{}'),
       coalesce(p.proconfig, '{}')
from pg_catalog.pg_proc p left join pg_catalog.pg_trigger t on t.tgfoid = p.oid and not t.tgisinternal
where p.prosrc = %s group by p.oid, p.proconfig
"""


@dataclass(frozen=True, slots=True)
class BodyQuery:
    """One query or expression of a body: its text, the line of its statement (from 1), how it is parsed."""

    text: str
    line: int
    mode: int

    @property
    def as_statement(self) -> tuple[str, int]:
        """SQL that means the same, and how many characters of it stand before the text."""
        if self.mode == 0:
            return self.text, 0
        if self.mode == 2:
            return f"select {self.text}", len("select ")
        target, sign, value = self.text.partition(":=")
        if not sign:
            target, sign, value = self.text.partition("=")
        return f"select {' ' * (len(target) + len(sign))}{value}", len("select ")


@dataclass
class ParsedBody:
    """The variables with their types ('' where a record's columns are not known), and the queries."""

    variables: dict[str, str] = field(default_factory=dict)
    queries: list[BodyQuery] = field(default_factory=list)
    temporary: set[str] = field(default_factory=set)


def parse_body(text: str) -> ParsedBody | None:
    """The body of a CREATE FUNCTION or DO statement; None where it cannot be parsed."""
    try:
        functions = postgast.parse_plpgsql(text)
    except json.JSONDecodeError as error:
        try:
            functions = json.loads(_NAMELESS_DATUMS.sub("", error.doc, count=1))
        except json.JSONDecodeError:
            return None
    except postgast.PgQueryError:
        return None
    body = ParsedBody()
    for one in functions:
        function = one["PLpgSQL_function"]
        for datum in function.get("datums", ()):
            _add_variable(body, datum)
        body.queries += _queries(function.get("action", {}), 1)
    body.temporary |= {
        m[1].lower()
        for q in body.queries
        for m in re.finditer(r"\b(?:temp|temporary)\s+table\s+(?:if\s+not\s+exists\s+)?(\w+)", q.text, re.IGNORECASE)
    }
    return body


def _add_variable(body: ParsedBody, datum: dict[str, Any]) -> None:
    if variable := datum.get("PLpgSQL_var"):
        name, kind = variable["refname"], variable.get("datatype", {}).get("PLpgSQL_type", {}).get("typname", "")
        kind = re.sub(r"%rowtype$", "", kind, flags=re.IGNORECASE)
        body.variables[name] = "" if body.variables.get(name, kind) != kind or kind == "record" else kind
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


@dataclass(frozen=True)
class BodyCheck:
    """Checks bodies on a connection whose schema is as the migrations left it."""

    connection: psycopg.Connection[Any]

    def failures(self, statement: SqlStatement, number: int) -> tuple[Failure, ...]:
        """The mistakes in the body of a statement, each at its place; of one query the first alone."""
        start, body = body_of(statement), parse_body(statement.text)
        if start is None or body is None:
            return ()
        row = self.connection.execute(CATALOGUE, (_source(statement, start),)).fetchone()
        tables, settings = row or ([], [])
        path = next((s.partition("=")[2] for s in settings if s.startswith("search_path=")), None)
        failures: dict[int | None, Failure] = {}
        for table in tables[:MOST_TABLES] or [""]:
            for query in body.queries:
                failure = self._one(_Look(statement, number, start, body, table, path), query)
                if failure is not None:
                    failures.setdefault(failure.offset, failure)
        return tuple(failures.values())

    def _one(self, look: _Look, query: BodyQuery) -> Failure | None:
        variables = look.variables
        used = {w.lower() for w in re.findall(r"[A-Za-z_][\w$]*", query.text)}
        if used & {name for name, kind in variables.items() if not kind}:
            return None
        text, before = query.as_statement
        prefix, suffix = _wrapped(variables)
        try:
            with self.connection.transaction(force_rollback=True):
                if look.path is not None:
                    self.connection.execute(f"set local search_path = {look.path or chr(39) * 2}".encode())
                self.connection.execute((prefix + text + suffix).encode())
        except psycopg.Error as error:
            if error.sqlstate not in JUDGED or any(f'"{t}"' in str(error) for t in look.body.temporary):
                return None
            return look.told(failure_of(error, look.statement, look.number), query, len(prefix) + before)
        return None


@dataclass(frozen=True)
class _Look:
    """One body, for one table of its trigger (`row`)."""

    statement: SqlStatement
    number: int
    start: int
    body: ParsedBody
    row: str
    path: str | None

    @property
    def variables(self) -> dict[str, str]:
        if "new" not in self.body.variables:
            return self.body.variables
        return {**OF_TRIGGERS, **self.body.variables, "new": self.row, "old": self.row}

    def told(self, failure: Failure, query: BodyQuery, before: int) -> Failure:
        """The failure at its place in the body; a field that a row has not is a column that its table has not."""
        at = None if failure.offset is None else max(failure.offset - before, 0)
        code, message = failure.code, failure.message
        alias = re.fullmatch(r'missing FROM-clause entry for table "(\w+)"', message)
        field_ = re.match(r"\w+\s*\.\s*(\w+)", query.text[at or 0 :])
        if alias and field_ and alias[1] in self.variables:
            code = "42703"
            message = f'column "{field_[1]}" of relation "{self.variables[alias[1]]}" does not exist'
        line = line_of_body(self.statement.text, self.start, query.line)
        place = place_in_body(self.statement.text, line, query.text, at)
        return replace(
            failure, code=code, message=message, offset=line if place is None else place, inner_query=query.text
        )


def _wrapped(variables: dict[str, str]) -> tuple[str, str]:
    """What stands before and behind a query to make it the body of a function with these parameters."""
    known = {n: t for n, t in variables.items() if t}
    parts = [f"{sql.Identifier(n).as_string()} {t}" if not n.startswith("$") else t for n, t in known.items()]
    head = f"create function pg_temp.rehearsal_body({', '.join(parts)}) returns void language sql as $rehearsal$"
    return head, "$rehearsal$"


def _source(statement: SqlStatement, start: int) -> str:
    """The body as the catalogue has it."""
    text = statement.text
    tag = text[text.rindex("$", 0, start - 1) : start]
    return text[start : text.index(tag, start)]


def functions_of(ran: Sequence[tuple[int, SqlStatement]]) -> Iterator[SqlStatement]:
    """The statements that made PL/pgSQL functions, of each function the last."""
    last: dict[str, SqlStatement] = {}
    for _, statement in ran:
        words = statement.plain
        if words[:1] == ("create",) and {"function", "procedure"} & set(words[1:4]) and "plpgsql" in words:
            opened = words.index("(") if "(" in words else 0
            closed = words.index(")", opened) if ")" in words[opened:] else opened
            name = " ".join(w for w in words[1 : closed + 1] if w not in {"or", "replace"})
            last[name.replace("public . ", "")] = statement
    yield from last.values()
