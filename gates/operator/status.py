"""What a target shows now: the observability queries and the endpoints that say who answers. Read-only. What cannot be
seen is unknown, with the reason; nothing here judges.
"""

import argparse
import datetime as dt
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import psycopg

from gates import config, disk, record
from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.identity import identity
from gates.deployment.redaction import hidden, redact, redact_text
from gates.deployment.requests import Request
from gates.deployment.sql.database import Connection, session, sql
from gates.deployment.sql.failures import in_words
from gates.deployment.target import Target
from gates.errors import ConfigError, GateError
from gates.evidence import JsonValue, Outcome
from gates.inputs import options as shared
from gates.reports.console import Console
from gates.reports.terminal import cell, table
from gates.stages.preflight.database import sees_rows
from gates.stages.suite import ROOT
from gates.text import foreign
from gates.text.inert import Terminal
from gates.watch import history
from gates.watch.rounds import EXIT_CODES

QUERIES = ROOT / "sql_checks" / "observability"
FIRST = ("rollout", "pauses", "outbox_lag", "outbox_depth", "held_tenants", "dead_letters")
"""The order of the tables: most wanted first; other files of the folder follow by name."""
STATEMENT_TIMEOUT_MS = 5_000
TOTAL_S = 30.0
HTTP_TIMEOUT_S = 5.0
INTERVAL = psycopg.adapters.types["interval"].oid
VERSION_REQUESTS = 12
"""New connections that ask for /version: enough to meet each of three instances with 97 % at random balancing."""

MOST_DIGITS = 20
"""The most digits of a whole number: longer ones get an exponent, and Python refuses to print the longest."""

UNKNOWN = "unknown"
NO_RELEASE = "an answer of /version names no release. See that BASE_URL is right, and that /version says what runs"

Row = Mapping[str, JsonValue]
MOST_ROWS = 20


@dataclass(frozen=True, slots=True)
class Section:
    """One table: its name, title and rows. `unknown`: why it, or a part of it, could not be read."""

    name: str
    title: str
    rows: tuple[Row, ...] = ()
    unknown: str = ""

    def to_json(self) -> dict[str, JsonValue]:
        seen: dict[str, JsonValue] = {"rows": [dict(r) for r in self.rows]} if self.rows or not self.unknown else {}
        return {"title": self.title, **seen, **({"unknown": self.unknown} if self.unknown else {})}


def look(target: Target, out: Path, history_file: Path, name: str) -> list[Section]:
    """Every section, in the order for people. Never raises for what the target refuses. out: the folder of the gate's
    last run. history_file, name: the history of the watch, and the target in it.
    """
    found = [_over_http(target), _last_run(out), _last_round(history_file, name), *_over_sql(target)]
    hide = hidden(target)
    return [_clean(one, hide) for one in found]


def _clean(one: Section, hide: Mapping[str, str]) -> Section:
    rows = tuple({k: redact(v, hide) for k, v in row.items()} for row in one.rows)
    return Section(one.name, one.title, rows, redact_text(one.unknown, hide))


# --- over HTTP ---------------------------------------------------------------------------------------------------


def _over_http(target: Target) -> Section:
    title = "Instances: the releases that /version names, and what /healthz and /readyz answer."
    if not target.base_url:
        return Section("instances", title, unknown="BASE_URL is not set. Set it to where the functions live")
    try:
        with HttpDoor(target.base_url, timeout_s=HTTP_TIMEOUT_S) as door:
            alive, ready = (door.send(Request("GET", path)).status for path in ("/healthz", "/readyz"))
            said = _versions(door)
    except NoAnswer as error:
        return Section("instances", title, unknown=f"{error}. Check that it runs and BASE_URL is right")
    rows = [{**dict(one), "answers": said.count(one), "healthz": alive, "readyz": ready} for one in dict.fromkeys(said)]
    silent = "" if all(dict(one)["release"] != UNKNOWN for one in said) else NO_RELEASE
    return Section("instances", title, tuple(rows), silent)


def _versions(door: HttpDoor) -> list[tuple[tuple[str, JsonValue], ...]]:
    """The answers of /version over several new connections, as pairs, so that equal ones can be counted."""
    found: list[tuple[tuple[str, JsonValue], ...]] = []
    deadline = time.monotonic() + HTTP_TIMEOUT_S
    for _ in range(VERSION_REQUESTS):
        if found and time.monotonic() > deadline:
            break
        answer = door.send(Request("GET", "/version", (("Connection", "close"),)))
        told = answer.json() if answer.status == 200 else {}
        pairs = [(n, _named(told.get(n))) for n in ("release", "commit", "schema_version")]
        found.append((*pairs, *((("instance", str(told["instance"])),) if "instance" in told else ())))
    return found


def _named(value: object) -> str:
    return UNKNOWN if value is None or value == "" else str(value)


# --- what the gate itself left -----------------------------------------------------------------------------------


def _last_run(out: Path) -> Section:
    title = "The last run of the gate, as its folder has it."
    path = out / record.VERDICT
    try:
        verdict = json.loads(disk.read(path))
        names = ("decision", "release", "target", "finished_at", "reason")
        return Section("last_run", title, ({n: str(verdict[n])[:300] for n in names},))
    except FileNotFoundError:
        return Section("last_run", title, unknown=f"there is no {path}. Run the gate, or name its folder with --output")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return Section("last_run", title, unknown=f"{path} cannot be read ({type(error).__name__})")


def _last_round(path: Path, name: str) -> Section:
    title = "The last round of the watch."
    try:
        last = history.read(path, name).last
    except GateError as error:
        return Section("last_round", title, unknown=str(error))
    if last is None:
        return Section("last_round", title, unknown=f"there is no round of this target in {path}. See gate watch")
    opened = sum(i.firing and i.level != "note" for i in last.incidents)
    row: Row = {"state": last.state, "at": last.at, "release": last.release, "open": opened, "reason": last.reason}
    return Section("last_round", title, (row,))


# --- over SQL ----------------------------------------------------------------------------------------------------


def queries() -> list[tuple[str, str, str]]:
    """Name, title (its first comment) and text of every query."""
    files = {p.stem: p for p in sorted(QUERIES.glob("*.sql"))}
    names = [*(n for n in FIRST if n in files), *(n for n in files if n not in FIRST)]
    texts = {n: sql(files[n]) for n in names}
    return [(n, texts[n].splitlines()[0].removeprefix("-- "), texts[n]) for n in names]


def _over_sql(target: Target) -> list[Section]:
    wanted = [("sight", "Whether this login sees all rows.", ""), *queries()]
    if not target.database_url:
        return _unseen(wanted, "DATABASE_URL is not set. Set it to a login that sees all rows (replay_gate)")
    deadline = time.monotonic() + TOTAL_S
    try:
        limit = {"statement_timeout_ms": STATEMENT_TIMEOUT_MS}
        with session(target.database_url, read_only=True, **limit) as connection:
            found = [_sight(connection)]
            for one in wanted[1:]:
                late = time.monotonic() > deadline
                found.append(
                    _unseen([one], f"not asked: {TOTAL_S:g} s are over")[0] if late else _ask(connection, *one)
                )
            return found
    except psycopg.Error as error:
        return _unseen(wanted, f"{in_words(error)}. See that the database can be reached, and DATABASE_URL")


def _unseen(wanted: Sequence[tuple[str, str, str]], why: str) -> list[Section]:
    return [Section(name, title, unknown=why) for name, title, _ in wanted]


def _ask(connection: Connection, name: str, title: str, text: str) -> Section:
    try:
        cursor = connection.execute(text.encode())
        rows = cursor.fetchall()
    except psycopg.Error as error:
        return Section(name, title, unknown=f"{in_words(error)}. See {name}.sql")
    lengths = {d.name for d in cursor.description or () if d.type_code == INTERVAL}  # a duration names its unit
    named = [{f"{k}_s" if k in lengths else k: plain(v) for k, v in row.items()} for row in rows]
    return Section(name, title, tuple(named))


def _sight(connection: Connection) -> Section:
    """Row-level security may hide all rows from a login, which must not look like an empty queue."""
    title = "Whether this login sees all rows."
    try:
        seen = sees_rows(connection)
    except psycopg.Error as error:
        return Section("sight", title, unknown=in_words(error))
    if seen.outcome is not Outcome.PASS:
        return Section("sight", title, unknown=f"{seen.message}. What follows may be less than there is")
    return Section("sight", title, ({"tables": seen.observed, "of": seen.limit},))


def plain(value: object) -> JsonValue:
    """A database value as JSON: times as RFC 3339, durations as seconds, NaN and the like as text."""
    if isinstance(value, Decimal):
        is_whole = value.is_finite() and value.adjusted() < MOST_DIGITS and value == value.to_integral_value()
        return foreign.plain(int(value) if is_whole else float(value))
    if isinstance(value, dt.timedelta):
        return round(value.total_seconds(), 3)
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat(timespec="seconds")
    return foreign.plain(value)


def add_arguments(made: argparse.ArgumentParser, _name: str) -> None:
    shared.policy(made)
    shared.state(made)
    shared.as_json(made)
    made.add_argument(
        "--output", type=Path, default=Path("gate-out"), metavar="DIR", help="of the gate's last run (gate-out)"
    )
    made.add_argument("--history", type=Path, metavar="FILE", help="the history of the watch")


def carry_out(options: argparse.Namespace, console: Console) -> int:
    """Show the target as it is: 0 if all was seen, 10 if some is unknown. Raise ConfigError if there is no target."""
    file = config.load_policy(options.policy, dt.datetime.now(dt.UTC).date(), options.state)
    target = config.load_target(console.environ)
    if not target.base_url and not target.database_url:
        raise ConfigError(
            "neither BASE_URL nor DATABASE_URL is set; allowed: at least one of them. Set what to look at"
        )
    name = identity(target)
    remembered = options.history or file.settings.state_of(name) / history.FILE
    found = look(target, options.output, remembered, name)
    console.result(Terminal.document(as_json(found)) if options.json else as_tables(found))
    return EXIT_CODES["doubtful" if any(_counts(s) for s in found) else "good"]


def _counts(section: Section) -> bool:
    """Whether an unknown section matters: a missing run of the gate or the watch does not."""
    return bool(section.unknown) and section.name not in {"last_run", "last_round"}


def as_json(sections: Sequence[Section]) -> str:
    """One object: section -> title and rows, or title and why it is unknown."""
    members: dict[str, JsonValue] = {s.name: s.to_json() for s in sections}
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")) + "\n"


def as_tables(sections: Sequence[Section]) -> Terminal:
    """One table per section; text from the target cannot control the terminal."""
    return Terminal("\n").join(_as_table(s) for s in sections)


def _as_table(section: Section) -> Terminal:
    unknown = [f"  unknown: {section.unknown}"] * bool(section.unknown)
    if not section.rows and unknown:
        return Terminal.of_lines((section.title, *unknown))
    if not section.rows:
        return Terminal.of_lines((section.title, "  none"))
    titles = list(dict.fromkeys(name for row in section.rows for name in row))
    cells = [[cell(row.get(name)) for name in titles] for row in section.rows[:MOST_ROWS]]
    more = len(section.rows) - MOST_ROWS
    lines = [*table(cells, titles).splitlines(), *[f"… and {more} more (--json has all)"] * (more > 0)]
    return Terminal.of_lines((section.title, *(f"  {line}" for line in lines), *unknown))
