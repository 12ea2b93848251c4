"""Checks the SQL in PL/pgSQL bodies, which the server reads only when it runs.

Each statement of a body becomes, for a moment, the body of an SQL function whose parameters are the variables, so the
server resolves every name and type in it and says where one is wrong. A record with unknown columns is replaced by
NULL. SQL built at run time (EXECUTE) is not checked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql

from gates.rehearsal.explaining.explanation import line_of_body, place_in_body
from gates.rehearsal.explaining.failures import UNREAD, Failure, failure_of
from gates.rehearsal.reading.plpgsql import BodyQuery, ParsedBody, UnreadBodyError, body_span, parse_body
from gates.rehearsal.reading.rewriting import Rewritten, rewrite
from gates.rehearsal.reading.sources import SqlSource
from gates.rehearsal.reading.splitting import SqlStatement, split

JUDGED = {"42P01", "42703", "42883", "42704", "3F000", "42P02"}
"""Error codes of missing names. Other errors may come from this way of checking."""
OF_TRIGGERS = {
    **dict.fromkeys(("tg_name", "tg_table_name", "tg_table_schema", "tg_relname"), "name"),
    **dict.fromkeys(("tg_when", "tg_level", "tg_op", "tg_event", "tg_tag"), "text"),
    "tg_relid": "oid",
    "tg_nargs": "integer",
    "tg_argv": "text[]",
}
MOST_TABLES = 8
"""The most tables of one trigger function; for each of them NEW and OLD are other rows."""
CATALOGUE = """
select coalesce(array_agg(t.tgrelid::regclass::text) filter (where t.oid is not null), '{}'),
       coalesce(p.proconfig, '{}'), coalesce(p.proargnames, '{}'), p.proname,
       array(select format_type(a.kind, null)
             from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) with ordinality a (kind, n) order by n)
from pg_catalog.pg_proc p left join pg_catalog.pg_trigger t on t.tgfoid = p.oid and not t.tgisinternal
where p.prosrc = %s group by p.oid
"""
_LOOKS_FIRST = re.compile(
    r"information_schema|\bpg_(?!sleep|notify|advisory|temp)\w+|\bto_reg\w+|\bwhen\s+(?:others|undefined_)"
)
"""A block that tests what exists, or handles errors, may name things that do not exist."""

SETS_PATH = re.compile(r"set_config[^;]*search_path|\bset\s+(?:local\s+|session\s+)?search_path\b", re.IGNORECASE)
"""A body that sets the search path itself: where its names are looked up is unknown before it runs."""


@dataclass(frozen=True)
class BodyCheck:
    """Checks bodies on a connection whose schema is as the migrations left it."""

    connection: psycopg.Connection[Any]

    def failures(self, statement: SqlStatement, number: int, made_with: str = "") -> tuple[Failure, ...]:
        """The mistakes in the body of a statement, each at its place; only the first of each query. made_with: the
        search path at its creation, which its callers may use too; '' for that of the session.
        """
        try:
            body, span = parse_body(statement), body_span(statement)
        except UnreadBodyError as error:
            return (unread(statement, number, str(error)),)
        if span is None or (statement.verb == "do" and _LOOKS_FIRST.search(statement.text.lower())):
            return ()
        source = statement.text[slice(*span)]
        if SETS_PATH.search(source):
            return ()
        row = self._found(source) if statement.verb == "create" else None
        if row is None and statement.verb == "create":
            return ()  # dropped since then
        tables, settings, names, function, types = row or ([], [], [], "", [])
        numbered = {f"${i}": t for i, t in enumerate(types, 1)}
        given = {**dict(zip(names, types, strict=False)), **numbered}
        body.variables |= {n: t for n, t in given.items() if n in body.variables and t != "record"}
        for alias, of in body.aliases.items():
            body.variables[alias] = numbered.get(of) or body.variables.get(of, "")
        own = next((s.partition("=")[2] or '""' for s in settings if s.startswith("search_path=")), None)
        paths = dict.fromkeys(("", made_with) if own is None else (own,))
        failures: dict[int | None, Failure] = {}
        for table in tables[:MOST_TABLES] or [""]:
            for query in body.queries:
                failure = self._one(_Look(statement, number, span[0], body, table, tuple(paths), function), query)
                if failure is not None:
                    failures.setdefault(failure.offset, failure)
        return tuple(failures.values())

    def _found(self, source: str) -> Any:
        """The catalogue entry of the function with that body. Unqualified names here are the server's own."""
        with self.connection.transaction(force_rollback=True):
            self.connection.execute("set local search_path = pg_catalog, pg_temp")
            return self.connection.execute(CATALOGUE, (source,)).fetchone()

    def _one(self, look: _Look, query: BodyQuery) -> Failure | None:
        """The first mistake in a query: as written, and, if that depends on a record, with NULL in its place."""
        text, before = query.as_statement
        failure = self._refused(look, Rewritten(text, ((0, 0, True),)), before)
        if failure is None:
            return None
        if look.names_unknown(failure):
            failure = self._refused(look, _without_records(text, look.unknown), before)
            if failure is None or re.match("operator", failure.message) or "record" in failure.message:
                return None  # of unknown types
        return look.told(failure, query) if look.is_to_blame(failure) else None

    def _refused(self, look: _Look, query: Rewritten, before: int) -> Failure | None:
        """The failure of a query that fails with every search path; preferably one that may be no mistake."""
        failures = list[Failure]()
        for path in look.paths:
            failure = self._refused_with(path, look, query, before)
            if failure is None:
                return None
            failures.append(failure)
        return next((f for f in failures if look.names_unknown(f) or not look.is_to_blame(f)), failures[0])

    def _refused_with(self, path: str, look: _Look, query: Rewritten, before: int) -> Failure | None:
        head = look.head
        try:
            with self.connection.transaction(force_rollback=True):
                if path:
                    self.connection.execute("select pg_catalog.set_config('search_path', %s, true)", (path,))
                self.connection.execute(f"{head}{query.text}$rehearsal$".encode())
        except psycopg.Error as error:
            failure = failure_of(error, look.statement, look.number)
            at = None if failure.offset is None else query.old(max(failure.offset - len(head), 0))
            return replace(failure, offset=None if at is None else max(at - before, 0))
        return None


def unread(statement: SqlStatement, number: int, why: str) -> Failure:
    """The failure of a body that could not be checked."""
    return Failure(statement, number, UNREAD, why)


def _without_records(text: str, unknown: frozenset[str]) -> Rewritten:
    """The query with NULL for each field of a record, and a row with NULL for the record."""
    words = [w for s in split(SqlSource("", text)) for w in s.words]
    parts, last = [], 0
    for index, word in enumerate(words):
        if word.text not in unknown or word.is_text or word.start < last or (index and words[index - 1].text == "."):
            continue
        end = index
        while end + 2 < len(words) and words[end + 1].text == "." and words[end + 1].start == words[end].end:
            end += 2
        last = words[end].end
        parts.append((word.start, last, "(null)" if end > index else "row(null)"))
    return rewrite(text, parts)


@dataclass(frozen=True)
class _Look:
    """One body, for one table of its trigger (`row`). paths: search paths to try for each query; '' the session's."""

    statement: SqlStatement
    number: int
    start: int
    body: ParsedBody
    row: str
    paths: tuple[str, ...]
    function: str

    @property
    def variables(self) -> dict[str, str]:
        if "new" not in self.body.variables:
            return self.body.variables
        return {**OF_TRIGGERS, **self.body.variables, "new": self.row, "old": self.row}

    @property
    def unknown(self) -> frozenset[str]:
        """The records whose columns are unknown."""
        return frozenset(name for name, kind in self.variables.items() if not kind)

    @property
    def head(self) -> str:
        """The text before a query that makes it the body of a function of the same name with these parameters."""
        known = {n: t for n, t in self.variables.items() if t}
        parts = [f"{sql.Identifier(n).as_string()} {t}" if not n.startswith("$") else t for n, t in known.items()]
        name = sql.Identifier("pg_temp", self.function or "rehearsal_body").as_string()
        return f"create function {name}({', '.join(parts)}) returns void language sql as $rehearsal$"

    def names_unknown(self, failure: Failure) -> bool:
        """Whether the server complains about a record that it does not know here."""
        return any(one in self.unknown for one in re.findall(r'["\s](\w+)(?:"|\.| does not)', failure.message))

    def is_to_blame(self, failure: Failure) -> bool:
        """Whether a name does not exist, and is neither a temporary table nor the name of a block."""
        quoted = set(re.findall(r'"([^"]+)"', failure.message))
        return failure.code in JUDGED and not quoted & (self.body.temporary | self.body.labels)

    def told(self, failure: Failure, query: BodyQuery) -> Failure:
        """The failure at its place in the body; a missing field of a row becomes a missing column of its table."""
        at = failure.offset
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


def function_made(statement: SqlStatement) -> str:
    """The name and the arguments of the PL/pgSQL function that a statement makes; '' where it makes none."""
    words = statement.plain
    if words[:1] != ("create",) or not {"function", "procedure"} & set(words[1:4]) or "plpgsql" not in words:
        return ""
    opened = words.index("(") if "(" in words else 0
    closed = words.index(")", opened) if ")" in words[opened:] else opened
    return " ".join(w for w in words[1 : closed + 1] if w not in {"or", "replace"}).replace("public . ", "")
