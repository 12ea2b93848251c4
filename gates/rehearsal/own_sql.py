"""Checks a user's own alert and spot-check files against the schema: each statement is parsed and planned, none runs.
Plain SQL, scripts for psql, Markdown, the project's spot checks, and alert rules in YAML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg

from gates.contract.fragments import FragmentError
from gates.errors import ConfigError
from gates.inputs.strict_yaml import Place, YamlNode
from gates.inputs.strict_yaml import read as read_yaml
from gates.rehearsal.bodies import BodyCheck, unread
from gates.rehearsal.breach import BreachView, breach_view
from gates.rehearsal.execution import StatementLimit, execute
from gates.rehearsal.explaining.explanation import explain
from gates.rehearsal.explaining.failures import Failure, failure_of
from gates.rehearsal.explaining.history import AT_THE_END
from gates.rehearsal.explaining.remedies import Surroundings
from gates.rehearsal.obstacles import Obstacle, at
from gates.rehearsal.postgres.server import Rehearsed
from gates.rehearsal.reading.plpgsql import body_span
from gates.rehearsal.reading.raising import how_it_raises
from gates.rehearsal.reading.rewriting import Rewritten, Unknown, variable_of, with_fragments, with_values
from gates.rehearsal.reading.skipping import unseen
from gates.rehearsal.reading.sources import SqlSource, blank, read_source, read_text
from gates.rehearsal.reading.splitting import Lines, SqlStatement, split

SHIPPED = Path(__file__).parents[2] / "sql_checks"
PLANNED = {"select", "with", "values", "table", "insert", "update", "delete", "merge", "("}
CONTROLS = {"begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release"}
OF_THE_GATE = "the gate judges its rows: a breach is a failed check"
_SPOT = re.compile(r"\A-- id:[ \t]*sql/spot/")


@dataclass(frozen=True, slots=True)
class OwnQuery:
    """SQL at its places in a file. `judged`: whether the gate itself looks at its rows."""

    source: SqlSource
    judged: bool = False
    fragments: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnFile:
    """One file: how many statements, those that cannot run, those not judged and why, and the effect of a breach."""

    file: str
    statements: int
    obstacles: tuple[Obstacle, ...]
    breach: BreachView
    unjudged: tuple[str, ...] = ()


def read_queries(path: Path) -> tuple[OwnQuery, ...]:
    """The queries of a file. Raise ConfigError with file, line and column if it cannot be read."""
    shown = str(path)
    if path.suffix.lower() in {".yaml", ".yml"}:
        text = read_text(path, shown)
        folders = (path.parent / "fragments", SHIPPED / "alerts" / "fragments")
        found = tuple(OwnQuery(SqlSource(shown, t), True, folders) for t in _of_yaml(read_yaml(text, shown), text))
        if not found:
            raise Place(shown, 1, 1).error(
                "no query", "groups with rules that have a `query`", "Name a file of alert rules"
            )
        return found
    source = read_source(path, shown, [])
    if _SPOT.match(source.text):
        return (OwnQuery(source, True, (path.parent / "fragments", SHIPPED / "spot" / "fragments")),)
    return (OwnQuery(source),)


def _of_yaml(node: YamlNode, text: str) -> Iterator[str]:
    """The text of the file reduced to one query, for each `query` and `expr`."""
    if isinstance(node.value, dict):
        for name, (_, child) in node.value.items():
            if name in {"query", "sql"} and isinstance(child.value, str):
                yield _alone(text, child)
            else:
                yield from _of_yaml(child, text)
    for child in node.items():
        yield from _of_yaml(child, text)


def _alone(text: str, node: YamlNode) -> str:
    """Blank everything but one value: a block below its `|`, or the value on its line."""
    lines, value = text.split("\n"), str(node.value)
    kept = [blank(line) for line in lines]
    first = lines[node.place.line - 1][node.place.column - 1 :]
    if first[:1] in {"|", ">"}:
        for number in range(node.place.line, min(node.place.line + value.count("\n") + 1, len(lines))):
            if lines[number].strip() and lines[number].strip() not in value:
                break
            kept[number] = lines[number]
    else:
        kept[node.place.line - 1] = " " * (node.place.column - 1 + max(first.find(value), 0)) + value
    return "\n".join(kept)


def prepare(
    server: Rehearsed, database: str, paths: Sequence[Path], around: Surroundings, before: Sequence[Failure] = ()
) -> tuple[OwnFile, ...]:
    """Check every file; `before`: what failed in the migrations. Raise ConfigError if a file cannot be read."""
    made = []
    for path in paths:
        queries = read_queries(path)
        with server.session(database) as connection:
            raising = _raising(connection)
            parts = [_Preparation(server, connection, query).run() for query in queries]
        statements = [s for p in parts for s in p.statements]
        found = explain([*before, *(f for p in parts for f in p.failures)], around)[len(before) :]
        breach = BreachView(True, OF_THE_GATE) if queries[0].judged else breach_view(statements, raising)
        unjudged = (
            *(u for p in parts for u in p.unjudged),
            *(f"{at(one.place)} {one.meaning}" for one in unseen(statements)),
        )
        made.append(OwnFile(str(path), sum(not s.meta for s in statements), found, breach, unjudged))
    return tuple(made)


def _raising(connection: psycopg.Connection[Any]) -> frozenset[str]:
    query = (
        "select p.proname, pg_catalog.pg_get_functiondef(p.oid) from pg_catalog.pg_proc p "
        "join pg_catalog.pg_namespace n on n.oid = p.pronamespace join pg_catalog.pg_language l on l.oid = p.prolang "
        r"where l.lanname = 'plpgsql' and p.prosrc ~* '\m(raise|assert)\M'"
    )
    made = connection.execute(query.encode()).fetchall()
    return frozenset(str(name) for name, text in made if how_it_raises(split(SqlSource("", str(text)))[0]))


@dataclass
class _Preparation:
    """One query or script on a session of its own, in a transaction that is rolled back."""

    server: Rehearsed
    connection: psycopg.Connection[Any]
    query: OwnQuery
    statements: tuple[SqlStatement, ...] = ()
    failures: list[Failure] = field(default_factory=list)
    unjudged: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)

    def run(self) -> _Preparation:
        source = self.query.source
        try:
            expanded = with_fragments(source.text, self.query.fragments) if self.query.judged else None
        except FragmentError as error:
            raise ConfigError(f"{source.shown}:1:1: {error}") from None
        statements = split(replace(source, text=expanded.text) if expanded else source)
        self.statements = statements
        self.connection.execute("begin")
        if self.query.judged:
            self.connection.execute("set local search_path = pg_catalog, pg_temp")  # as in the gate's own sessions
        for statement in statements:
            failures = self._of(statement)
            self.failures += [_moved(f, statement, source, expanded) for f in failures] if expanded else failures
        self.connection.execute("rollback")
        return self

    def _of(self, statement: SqlStatement) -> Sequence[Failure]:
        if statement.meta:
            if variable := variable_of(statement):
                self.values[variable[0]] = variable[1]
            return ()
        if statement.verb in CONTROLS:
            return ()
        if statement.verb == "do":
            return self._block(statement)
        failure = None
        for unknown in (Unknown.PARAMETER, Unknown.NULL):
            rewritten = with_values(statement, self.values, unknown)
            failure = self._try(statement, rewritten)
            if failure is None or not rewritten.unknown or failure.code not in {"42601", "42P18", "42P02"}:
                break
        else:
            names = ", ".join(f":{name}" for name in rewritten.unknown)
            self.unjudged.append(f"{at(statement.place())} depends on {names}, whose value is not known")
            return ()
        return (failure,) if failure else ()

    def _try(self, statement: SqlStatement, rewritten: Rewritten) -> Failure | None:
        before = "prepare rehearsal_query as " if statement.verb in PLANNED else ""
        try:
            with self.connection.transaction(), StatementLimit(self.server, self.connection) as limit:
                if before:
                    self.connection.execute((before + rewritten.text).encode())
                    self.connection.execute("deallocate rehearsal_query")
                else:
                    execute(self.connection, replace(statement, text=rewritten.text), limit)
        except psycopg.Error as error:
            failure = failure_of(error, statement, AT_THE_END)
            at = None if failure.offset is None else rewritten.old(max(failure.offset - len(before), 0))
            return replace(failure, offset=at)
        return None

    def _block(self, statement: SqlStatement) -> Sequence[Failure]:
        """Compile a DO block and check its queries one by one; it is not run."""
        span = body_span(statement)
        if span is None:
            return (unread(statement, AT_THE_END, "no body in dollar quotes"),)
        head, tag = "create function pg_temp.rehearsal_block() returns void language plpgsql as ", "$rehearsal$"
        body = tag + statement.text[slice(*span)] + tag
        try:
            with self.connection.transaction(force_rollback=True):
                self.connection.execute((head + body).encode())
        except psycopg.Error as error:
            failure = failure_of(error, statement, AT_THE_END)
            at = None if failure.offset is None else failure.offset - len(head) - len(tag) + span[0]
            return (replace(failure, offset=at),)
        return BodyCheck(self.connection).failures(statement, AT_THE_END)


def _moved(failure: Failure, statement: SqlStatement, source: SqlSource, expanded: Rewritten) -> Failure:
    """The failure at its place in the file before fragments were included."""
    offset = expanded.old(statement.start + (failure.offset or 0))
    whole = SqlStatement(source.text, 0, statement.words, Lines(source.shown, source.text))
    return replace(failure, statement=whole, offset=offset)
