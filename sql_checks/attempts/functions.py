"""Calls, as one tenant, the functions with their owner's rights, or that say who asks: with the ids of another tenant
and of its rows, and with the words of these. Reads what else a tenant may read, too: tables and views of no tenant.

One that may write is called on no production, only with those ids, and undone: whatever it is, its locks last for a
moment, and are of rows that nobody else has.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from gates.deployment.dialect.current import current
from gates.deployment.sql.catalogue import with_fragments
from gates.deployment.sql.database import Connection, execute, sql
from sql_checks.attempts.statements import Attempt, Look, TenantStatement, attempt
from sql_checks.attempts.tenants import ID, NOTHING, TwoTenants

FUNCTIONS, RELATIONS = (Path(__file__).with_name(name) for name in ("functions.sql", "relations.sql"))
NAMES = ("uuid", "text", "character varying", "bpchar", "name")
"""The types of arguments that get the other tenant's id, or the id of one of its rows."""
NUMBERS = ("smallint", "integer", "bigint", "numeric")
REST = {**dict.fromkeys((*NUMBERS, "real", "double precision"), "50"), "boolean": "true", "interval": "100 years"}
"""Type -> the value of other arguments, chosen so that a function shows much. All others but times are NULL."""
HELD = ("dead_letter_queue", "event_outbox", "replay_runs", "agent_tasks", "events")
"""Tables whose rows tenants are kept apart in, and whose ids nobody else has."""
OTHERWISE = {
    "agent_controls": "update public.agent_controls set agents_paused = not agents_paused where company_id = %s",
    "edge_rate_limits": "delete from public.edge_rate_limits where split_part(key, ':', 2) = %s",
    "audit_logs": "insert into public.audit_logs (action, actor, scope) values ('agents_paused', 'drill', %s)",
}
"""Table -> how its rows of a company change, where they are not deleted."""
PAST, FUTURE = "2000-01-01", "2100-01-01"
FIRST_S, ALL_S = 1.0, 15.0
"""The limit of a function's calls together, then of each alone, and that of all functions."""
TENANT_KEYS = (("company_id",), ("tenant_id",), ("company",), ("tenant",))
ROW_KEYS = (("id",), ("event_id",))
"""What objects and rows that a function is given call the tenant, and the row that they ask for."""
KEYS, KEY = re.compile(r"(?:->>?\s*'[^']+'(?:::text)?\)*\s*)+"), re.compile(r"'([^']+)'")
"""A path into an object, in the text of a function, and a step of it."""
NOTED = """select from (
select pg_catalog.set_config('replaygate.noted', coalesce(string_agg(said, ' '), ''), true) as said from ({}) given
) noted where said is null"""
KNOWN = f"""select from regexp_matches(current_setting('replaygate.noted'), '{ID.pattern}', 'g') as one(ids)
where coalesce((select e.company_id <> %s from public.events e where e.id = ids[1]::uuid limit 1),
  (select d.company_id <> %s from public.dead_letter_queue d where d.id = ids[1]::uuid limit 1),
  (select r.company_id <> %s from public.replay_runs r where r.id = ids[1]::uuid limit 1)) limit 1000"""
"""Notes what a tenant reads, and finds in it the ids of rows of others."""
OF_COMPANIES = """select from regexp_matches(current_setting('replaygate.noted'), %s, 'g') as one(ids)
where exists (select from public.companies c where c.id = ids[1]::uuid and c.id <> %s) limit 1000"""
"""Finds in it the ids of other companies."""
ANYWHERE = f"({ID.pattern})"
IN_AN_EVENT = (
    rf'"(?:company_id|tenant_id)"+:\s*"+({ID.pattern})'
    r'(?=[^{}]*"(?:event_type|aggregate_key|error_type|error_message)")'
)
"""Where they are those of a row's tenant: in an archive, and in an object that says what events say. What companies
offer each other names them, too.
"""
OUT_OF_TIME, ASSERTED = "57014", "P0004"
"""SQLSTATEs that no handler of PL/pgSQL catches: they end all calls that were sent together."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the target: how it is called and shown, its text, the types it takes; how many may be left out;
    whose code it would run with the gate's rights; whether strangers alone may call it; whether it may change rows.
    """

    name: str
    shown: str
    body: str
    defaults: int
    unsafe_owner: str
    is_procedure: bool
    is_variadic: bool
    is_for_strangers: bool
    writes: bool
    types: tuple[str, ...]

    @property
    def caller(self) -> str:
        return "anon" if self.is_for_strangers else "authenticated"

    @property
    def paths(self) -> list[tuple[str, ...]]:
        """The paths of the values that it looks for in an object, or in a row (`row:` and its type)."""
        found = {tuple(KEY.findall(path)) for path in KEYS.findall(self.body)}
        return sorted(found | {*TENANT_KEYS, *ROW_KEYS})


@dataclass(frozen=True, slots=True)
class Learned:
    """What a tenant learns of another. gave: function, table or view -> rows with a mark of another tenant; wrote:
    function -> tables in which it changed rows of the other tenant, or copied them for who asks; by: functions whose
    answer depends on such rows; slow: what did not end in time; uncalled: what is unsafe to call, and whose it is;
    unchanged: functions that name a table whose rows could not be changed to ask again.
    """

    gave: dict[str, int] = field(default_factory=dict)
    wrote: dict[str, int] = field(default_factory=dict)
    by: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)
    uncalled: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)


def called(connection: Connection, tenants: TwoTenants, *, may_write: bool) -> Learned:
    """What all that a tenant may call or read tells. may_write: whether functions that may write are called. The last
    act of a transaction: it changes the statement timeout.
    """
    every = [_function(row) for row in execute(connection, with_fragments(sql(FUNCTIONS)))]
    found = [one for one in every if not one.unsafe_owner]
    if not tenants.marks:
        return Learned()
    end = time.monotonic() + ALL_S
    readers = [one for one in found if not one.writes and not one.is_procedure]
    reading = {one.shown: [*_calls(one, tenants)] for one in readers}
    writing = {one.shown: [*_written(connection, one, tenants)] for one in found if one.writes and may_write}
    gave, slow = _tried(connection, reading, end)
    wrote, too_slow = _tried(connection, {name: calls for name, calls in writing.items() if calls}, end)
    seen, unread = _tried(connection, _reads(connection, tenants), end)
    gave |= seen
    silent = [one for one in readers if one.shown not in {*gave, *slow}]
    uncalled = [f"{one.shown} of {one.unsafe_owner}" for one in every if one.unsafe_owner]
    by, unchanged = _depending(connection, silent, tenants, end)
    return Learned(gave, wrote, by, sorted({*slow, *too_slow, *unread} - {*wrote, *gave}), uncalled, unchanged)


def _reads(connection: Connection, tenants: TwoTenants) -> dict[str, list[TenantStatement]]:
    """Tables and views without a column of the tenant, or of who asks alone, and how to find in them the id of another
    tenant's row; those of companies may stand in a directory.
    """
    marks = {*tenants.marks}
    for table in (one for one in HELD if current().real(one)):
        rows = f"select to_jsonb(t) as row from public.{table} t where company_id <> %s limit 25"
        query = f"select row ->> 'id' as id, row ->> 'event_id' as event from ({rows}) rows"
        marks |= {text for one in execute(connection, query, tenants.mine) for text in map(str, one.values())}
    pattern = "|".join(filter(ID.fullmatch, sorted(marks)))
    found = dict[str, list[TenantStatement]]()
    for row in execute(connection, with_fragments(sql(RELATIONS))):
        rows = f"select r::text as said from {row['name']} r limit 1000"
        given = f"select from ({rows}) given where said ~ %s"
        noted = NOTED.format(rows)
        found[str(row["name"])] = [
            TenantStatement(query, values, "authenticated", tenants.claims, read_only=True, look=look)
            for query, values, look in (
                (given, (pattern,), None),
                (noted, (), (KNOWN, (tenants.mine,) * 3)),
                (noted, (), (OF_COMPANIES, (ANYWHERE if row["is_archive"] else IN_AN_EVENT, tenants.mine))),
            )
        ]
    for name in tenants.own:
        query, values = tenants.shown(name, [pattern])
        found[name] = [TenantStatement(query, values, "authenticated", tenants.claims, read_only=True)]
    return found


def _depending(
    connection: Connection, found: Sequence[Function], tenants: TwoTenants, end: float
) -> tuple[list[str], list[str]]:
    """The functions that answer otherwise once the other tenant's rows are gone or changed and its trail has one more,
    asked by its id or one of theirs; and those that name a table of which no row would change.
    """
    asked = {one.shown: [*_asked(one, tenants)] for one in found}
    calls = {name: some for name, some in asked.items() if some}
    deleted = {one: f"delete from public.{one} where company_id = %s" for one in (*HELD[::-1], "replay_budgets")}
    changes = {one: change for one, change in {**deleted, **OTHERWISE}.items() if current().real(one)}
    connection.execute("savepoint depending")
    before = _answers(connection, calls, end)
    again = _answers(connection, calls, end)
    done = attempt(connection, [TenantStatement(change, (tenants.other,), keep=True) for change in changes.values()])
    after = _answers(connection, calls, end)
    connection.execute("rollback to savepoint depending")
    kept = {current().real(one).rpartition(".")[2] for one, came in zip(changes, done, strict=True) if not came.rows}
    kept &= {*tenants.digests}  # of the others it has no row
    by = sorted(name for name in calls if before[name] and before[name] == again[name] != after[name] and after[name])
    bodies = {one.shown: one.body for one in found if one.shown in calls and one.shown not in by}
    return by, sorted(name for name, body in bodies.items() if any(table in body for table in kept))


def _answers(
    connection: Connection, calls: Mapping[str, Sequence[TenantStatement]], end: float
) -> dict[str, Sequence[int]]:
    """The answers of each function as numbers; none where it did not end in time."""
    found = dict[str, Sequence[int]]()
    for name, some in calls.items():
        done = _within(connection, some, min(FIRST_S, end - time.monotonic()))
        found[name] = [one.rows for one in done or ()]
    return found


def _asked(function: Function, tenants: TwoTenants) -> Iterator[TenantStatement]:
    """Calls with as many rows as a digest of the answer says."""
    rows = {row for some in tenants.rows.values() for row in some}
    for given, asked in _arguments(function, tenants):
        if asked in rows or any(tenants.other in one for one in given):
            answer = f"from {function.name}({_listed(function, given)}) f"
            said = f"select md5(coalesce(string_agg(f::text, ' ' order by f::text), '')) {answer}"
            query = f"select from generate_series(1, 1 + ('x' || left(({said}), 3))::bit(12)::int)"
            yield TenantStatement(query, (), function.caller, tenants.claims, read_only=True)


def _tried(
    connection: Connection, calls: Mapping[str, Sequence[TenantStatement]], end: float
) -> tuple[dict[str, int], list[str]]:
    """The rows that each gave, and what did not end. A slow one is called again, one call at a time, at last for all
    the time that is left.
    """
    waiting, gave = [*calls], dict[str, int]()
    for is_alone, most_s in ((False, FIRST_S), (True, FIRST_S), (True, ALL_S)):
        slow: list[str] = []
        for name in waiting:
            batches = [[call] for call in calls[name]] if is_alone else [calls[name]]
            rows = [_rows(connection, some, min(most_s, end - time.monotonic())) for some in batches]
            gave[name] = max((n for n in rows if n is not None), default=0)
            if None in rows and not gave[name]:
                slow.append(name)
        waiting = slow
    return {name: rows for name, rows in gave.items() if rows}, waiting


def _function(row: Mapping[str, Any]) -> Function:
    return Function(**{**row, "types": tuple(row["types"])})


def _rows(connection: Connection, calls: Sequence[TenantStatement], limit_s: float) -> int | None:
    """The most rows that one of these calls gave, one for an error that says what it looks for; None if they did not
    all end within the limit.
    """
    done = _within(connection, calls, limit_s)
    if done is None:
        return None
    return max(one.rows or _says(call, one.error) for call, one in zip(calls, done, strict=True))


def _within(connection: Connection, calls: Sequence[TenantStatement], limit_s: float) -> list[Attempt] | None:
    """The results of these calls; None if they did not all end within the limit."""
    if limit_s <= 0:
        return None
    connection.execute("select pg_catalog.set_config('statement_timeout', %s, true)", (str(int(limit_s * 1000) + 1),))
    done = attempt(connection, calls, whole=True)
    cut_short = {OUT_OF_TIME} if len(calls) == 1 else {OUT_OF_TIME, ASSERTED}
    return None if any(not one.entered or one.state in cut_short for one in done) else done


def _says(call: TenantStatement, error: str) -> int:
    return sum(bool(error and re.search(str(mark), error)) for mark in call.values)


def _calls(function: Function, tenants: TwoTenants) -> Iterator[TenantStatement]:
    for given, asked in _arguments(function, tenants):
        marks = [mark for mark in tenants.marks if mark != asked]  # beside the one that was asked for
        yield _call(function, given, tenants.claims, marks)


def _written(connection: Connection, function: Function, tenants: TwoTenants) -> Iterator[TenantStatement]:
    """Calls, each with a look at the other tenant's rows in the tables that the function names, or in all."""
    named = [digest for table, digest in tenants.digests.items() if table in function.body]
    looks, values = list[str](), list[object]()
    for digest in named or tenants.digests.values():
        (before,) = execute(connection, digest, tenants.other)
        looks.append(f"select from ({digest}) now where digest <> %s")
        values += [tenants.other, before["digest"]]
    look = (" union all ".join(looks), values)
    copies = [name for name in tenants.own if name.rpartition(".")[2].strip('"') in function.body]
    for given, asked in _arguments(function, tenants):
        marks = [mark for mark in tenants.marks if mark != asked]
        seen = [tenants.shown(name, marks) for name in copies]
        see = (" union all ".join(query for query, _ in seen), [one for _, some in seen for one in some])
        if function.is_procedure:
            called_so = f"call {function.name}({_listed(function, given)})"
            one = TenantStatement(called_so, (), function.caller, tenants.claims, look=look)
        else:
            one = _call(function, given, tenants.claims, look=look)
        yield replace(one, see=see) if copies else one


def _arguments(function: Function, tenants: TwoTenants) -> Iterator[tuple[Sequence[str], str]]:
    """Arguments with and without those that have defaults; the other tenant as its ids, as its texts, as both, or NULL.
    Then each of its rows, and each of its words, otherwise as for one's own; with the row or word that they ask for.
    A function that may write gets none that could mean the rows of others: no NULL for all of them, and no word.
    """
    types = function.types
    several = {
        tuple(
            _given(function, kind, tenants.other, named, since)
            for kind, since in zip(types[:count], times, strict=False)
        )
        for count in {len(types), len(types) - function.defaults}
        for named in (NAMES, NAMES[:1], NAMES[1:], ())
        for times in _times(types)
    }
    for given in sorted(several):
        if not function.writes or any(tenants.other in one for one in given):
            yield given, ""
    read = [table for table in tenants.rows if table in function.body]
    asked = {row for table in read for row in tenants.rows[table]}
    words = {word for table in read for word in tenants.words[table] if not function.writes}
    for tenant, values in ((tenants.mine, asked), (tenants.other, words)):
        other = [
            _given(function, kind, tenant, NAMES, since) for kind, since in zip(types, _times(types)[0], strict=True)
        ]
        for (place, kind), value in product(enumerate(types), sorted(values)):
            fitting = NUMBERS if value.isdigit() else NAMES if ID.match(value) else NAMES[1:]
            asking = [_literal(kind, value)] if kind.removesuffix("[]") in fitting else []
            if _has_keys(kind):
                asking = [_object(kind, {**dict.fromkeys(TENANT_KEYS, tenant), path: value}) for path in function.paths]
            for one in asking:
                yield [*other[:place], one, *other[place + 1 :]], value


def _times(types: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The times to give, place by place: from the past on to the future, and up to the future."""
    first = next((place for place, kind in enumerate(types) if _is_time(kind)), None)
    return [PAST if place == first else FUTURE for place in range(len(types))], [FUTURE] * len(types)


def _is_time(kind: str) -> bool:
    return kind == "date" or kind.startswith("timestamp")


def _call(
    function: Function, given: Sequence[str], claims: str, marks: Sequence[str] = (), look: Look | None = None
) -> TenantStatement:
    """Which rows of its answer have a mark."""
    rows = f"select f::text as said from {function.name}({_listed(function, given)}) f"
    query = f"select from ({rows}) given where said ~ %s limit 1000"
    text = "|".join(marks) or NOTHING
    return TenantStatement(query, (text,), function.caller, claims, read_only=not function.writes, look=look)


def _listed(function: Function, given: Sequence[str]) -> str:
    is_list = function.is_variadic and len(given) == len(function.types)
    return ", ".join([*given[:-1], f"variadic {given[-1]}"] if is_list else given)


def _has_keys(kind: str) -> bool:
    return kind.startswith(("json", "row:"))


def _object(kind: str, values: Mapping[tuple[str, ...], str]) -> str:
    """An object, or a row of a type, with a value at the end of each path."""
    whole: dict[str, Any] = {}
    for *outer, last in sorted(values, key=len):
        at = whole
        for key in outer:
            at[key] = at = {} if isinstance(at.get(key), str) else at.get(key, {})
        at[last] = values[*outer, last]
    text = json.dumps(whole).replace("'", "''")
    row = kind.removeprefix("row:")
    return f"'{text}'::{kind}" if row == kind else f"jsonb_populate_record(null::{row}, '{text}')"


def _given(function: Function, kind: str, tenant: str, named: Sequence[str], since: str) -> str:
    """The literal for one argument."""
    if _has_keys(kind):
        paths = [*TENANT_KEYS, *function.paths] if kind.startswith("json") else TENANT_KEYS
        return _object(kind, dict.fromkeys(paths, tenant)) if named else f"null::{kind.removeprefix('row:')}"
    if kind.removesuffix("[]") in named:
        return _literal(kind, tenant)
    said = since if _is_time(kind) else REST.get(kind)
    return f"null::{kind}" if said is None else f"'{said}'::{kind}"


def _literal(kind: str, value: str) -> str:
    """A value as an argument, or as the only one of a list."""
    quoted = value.replace("'", "''")
    return f"'{{{quoted}}}'::{kind}" if kind.endswith("[]") else f"'{quoted}'::{kind}"
