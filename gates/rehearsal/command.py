"""The command `gate rehearse`: its options, the steps from a folder to a result, its output."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg

from gates.errors import CannotWork
from gates.inputs import options as shared
from gates.inputs import values
from gates.inputs.strict_yaml import Place
from gates.inputs.values import option
from gates.rehearsal import contract_view, locks
from gates.rehearsal.bodies import SETS_PATH, BodyCheck
from gates.rehearsal.execution import Performance, perform
from gates.rehearsal.explaining.explanation import absent_extensions, explain
from gates.rehearsal.explaining.history import AT_THE_END
from gates.rehearsal.explaining.remedies import Surroundings
from gates.rehearsal.obstacles import Obstacle, ObstacleKind, at
from gates.rehearsal.own_sql import prepare, read_queries
from gates.rehearsal.postgres import presets
from gates.rehearsal.postgres.server import DATABASE, OWNER, Rehearsed, throw_away
from gates.rehearsal.reading.layouts import Layout, depends_on_transaction, layout_of
from gates.rehearsal.reading.plpgsql import body_span
from gates.rehearsal.reading.skipping import undecided, unseen, with_word
from gates.rehearsal.reading.sources import Migrations, read_migrations
from gates.rehearsal.reading.splitting import SqlStatement, split
from gates.rehearsal.report import RehearsalResult, SecondRun, rehearsal_text
from gates.reports.console import Console
from gates.text.inert import Terminal

AGAIN = "rehearsal_again"
OF_SERVER = "pg_catalog,pg_temp"
"""The search path in which unqualified names are the server's own."""


def add_arguments(made: argparse.ArgumentParser, _name: str) -> None:
    shared.as_json(made)
    made.add_argument("folder", type=Path, metavar="DIR", help="migrations, or one .sql or .md file")
    made.add_argument("--preset", choices=("auto", *presets.PRESETS), default="auto", help="the platform (auto)")
    version = option(values.whole(9, 99))
    made.add_argument("--server-version", type=version, metavar="N", help="PostgreSQL's major version (embedded)")
    made.add_argument(
        "--sql", type=Path, nargs="+", action="extend", default=[], metavar="FILE", help="your alert and check files"
    )
    made.add_argument("--role", action="append", default=[], metavar="NAME", help="a role that your platform makes")


def carry_out(options: argparse.Namespace, console: Console) -> int:
    """Rehearse and print. Exit code: 0 all runs, 10 something to mend."""
    migrations = read_migrations(options.folder)
    for path in options.sql:
        read_queries(path)  # report unreadable files before a server is started
    result = rehearsal(migrations, console.environ, options.preset, options.server_version, options.role, options.sql)
    if options.json:
        console.result(Terminal.document(json.dumps(result.to_json(), ensure_ascii=False)))
    else:
        console.result(rehearsal_text(result, colour=console.colours_results))
    return result.exit_code


def rehearsal(
    migrations: Migrations,
    environ: Mapping[str, str],
    preset: str = "auto",
    version: int | None = None,
    roles: Sequence[str] = (),
    own: Sequence[Path] = (),
) -> RehearsalResult:
    """Run the migrations on a temporary server. Raise ConfigError for an unreadable file, UsageError for a version that
    is not installed, CannotWork if no server starts.
    """
    layout = layout_of(migrations)
    if layout:
        migrations = layout.with_placeholders(migrations)
    files = [split(source) for source in migrations.sources]
    chosen, why = presets.detect(migrations) if preset == "auto" else (preset, "")
    dumped = [r for r in presets.roles_of_dump(migrations) if r not in presets.roles_of(chosen)]
    notes = [*[why] * bool(why), *migrations.notes]
    notes += [f"roles that the dump names were made first: {', '.join(dumped)}"] * bool(dumped)
    pairs = enumerate(zip(migrations.sources, files, strict=True))
    whole = [i for i, (s, f) in pairs if layout and layout.in_one_transaction(s, f)]
    notes += _of_transactions(layout, files, whole)
    there = {OWNER, *presets.roles_of(chosen)}
    made = [r for r in dict.fromkeys((*roles, *dumped)) if r not in there]
    with throw_away(environ, version, made) as server:
        if sql := presets.statements_of(chosen):
            _furnish(server, sql)
        dumps = [i for i, s in enumerate(migrations.sources) if s.is_dump]
        done = perform(server, files, database=DATABASE, whole=whole, dumps=dumps)
        server.let_in()
        around = Surroundings(
            done.history, chosen, _volatile(server, done), _built_in(server), absent_extensions(done.failures)
        )
        obstacles = explain(done.failures, around)
        bodies = _bodies(server, done, around)
        compared = contract_view.view(server.owner())
        files_of_user = prepare(server, DATABASE, own, around, done.failures)
        stubs = (*presets.stubs_of(chosen), *_stubs_in_use(server))
        again = _again(server, files, whole)
        notes += [*with_word(done.skipped), *_not_looked_at(done)]
        return RehearsalResult(
            server.version,
            chosen,
            len(files),
            sum(not s.meta for f in files for s in f),
            (*obstacles, *unseen(done.skipped), *undecided(done.undecided), *_nothing(migrations, files)),
            stubs,
            bodies,
            files_of_user,
            compared,
            locks=locks.review(migrations.sources, server.version, environ),
            again=again,
            notes=tuple(notes),
            unfinished=done.unfinished,
        )


def _of_transactions(layout: Layout | None, files: Sequence[Sequence[SqlStatement]], whole: Sequence[int]) -> list[str]:
    """What was taken for one transaction, and where it would matter which tool runs the files."""
    if layout and whole:
        of = "each file is" if len(whole) == len(files) else f"{len(whole)} of {len(files)} files are"
        return [f"{of} one transaction, as {layout.tool} runs it"]
    first = None if layout else next((s for f in files if (s := depends_on_transaction(f))), None)
    what = "the statement there would fail in a tool that runs each file in one transaction"
    return [f"each statement was a transaction of its own; {at(first.place())}: {what}"] if first else []


def _nothing(migrations: Migrations, files: Sequence[Sequence[SqlStatement]]) -> list[Obstacle]:
    """The note that there was nothing to rehearse, which is no success."""
    if any(not s.meta for f in files for s in f):
        return []
    place, do = Place(migrations.sources[0].shown, 1, 1), "Name the folder or file that has the migrations"
    what = "There is no statement in what was read, so nothing was rehearsed"
    return [Obstacle(place, ObstacleKind.NOT_JUDGED, "empty", "not sent", what, do, "")]


def _furnish(server: Rehearsed, sql: str) -> None:
    try:
        server.furnish(sql)
    except psycopg.Error as error:
        raise CannotWork(f"the preset does not fit PostgreSQL {server.version}: {error}. Give --preset none") from error


def _bodies(server: Rehearsed, done: Performance, around: Surroundings) -> tuple[Obstacle, ...]:
    """The mistakes in blocks, and in functions that the migrations created."""
    with server.session() as connection:
        check = BodyCheck(connection)
        failures = [f for s, path in done.functions.values() for f in check.failures(s, AT_THE_END, path)]
    return (*explain(done.blocks, around), *explain(failures, around))


def _not_looked_at(done: Performance) -> list[str]:
    """A note on bodies that set the search path themselves: they were not checked."""
    found = [s for s, _ in done.functions.values() if SETS_PATH.search(s.text[slice(*(body_span(s) or (0, 0)))])]
    where = f"the first at {at(found[0].place())}" if found else ""
    return [f"bodies that set the search path themselves, and were not looked at: {len(found)}, {where}"] * bool(found)


def _again(server: Rehearsed, files: Sequence[Sequence[SqlStatement]], whole: Sequence[int]) -> SecondRun | None:
    """Run all files again on a copy; None if it cannot be made, or the time is over."""
    try:
        server.copy_database(AGAIN)
    except psycopg.Error:
        return None
    done = perform(server, files, database=AGAIN, whole=whole, history=False)
    if done.unfinished:
        return None
    first = done.failures[0].statement.place() if done.failures else None
    return SecondRun(sum(not s.meta for f in files for s in f), len(done.failures), first)


def _volatile(server: Rehearsed, done: Performance) -> frozenset[str]:
    """The non-immutable functions in statements with a failed index or generated column."""
    words = {w for f in done.failures if f.code == "42P17" for w in f.statement.plain}
    if not words:
        return frozenset()
    with server.session(path=OF_SERVER) as connection:
        rows = connection.execute(
            "select distinct proname from pg_catalog.pg_proc where provolatile <> 'i' and proname = any(%s)",
            (list(words),),
        )
        named = {str(name) for (name,) in rows}
    keywords = {"current_timestamp", "current_date", "current_time", "localtimestamp", "localtime", "current_user"}
    return frozenset(named | (words & keywords))


def _built_in(server: Rehearsed) -> dict[str, list[str]]:
    """The server's own functions by name, each with its lists of arguments."""
    query = (
        "select proname::text, array_agg(pg_catalog.pg_get_function_identity_arguments(oid)) from pg_catalog.pg_proc "
        "where pronamespace = 'pg_catalog'::regnamespace group by proname"
    )
    with server.session(path=OF_SERVER) as connection:
        rows: Any = connection.execute(query.encode()).fetchall()
    return dict(rows)


def _stubs_in_use(server: Rehearsed) -> tuple[str, ...]:
    with server.session(path=OF_SERVER) as connection:
        rows = connection.execute("select extname from pg_catalog.pg_extension where extversion = 'stub' order by 1")
        return tuple(f"extension {name}" for (name,) in rows)
