"""Renames the schemas, tables, columns, states, functions and roles of a reference database."""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import psycopg

from gates.contract.contract import contract

TABLES = {
    "companies": "app.accounts",
    "feature_flags": "app.switches",
    "replay_budgets": "app.allowances",
    "edge_rate_limits": "app.call_windows",
    "replay_runs": "ops.replays",
    "audit_logs": "ops.journal",
    "audit_heads": "ops.journal_heads",
    "events": "app.facts",
    "event_outbox": "ops.outgoing",
    "dead_letter_queue": "ops.failed_jobs",
    "agent_tasks": "public.work",
    "agent_controls": "app.controls",
    "feature_flags_status": "app.switches_seen",
    "replay_budgets_status": "app.allowances_seen",
}
COLUMNS = {
    "company_id": "tenant_id",
    "enabled": "is_on",
    "rollout_percentage": "share",
    "daily_used": "used_of_day",
    "monthly_limit": "limit_of_month",
    "hits": "calls",
    "idempotency_key": "dedup_key",
    "success_count": "done_count",
    "requested_at": "asked_at",
    "completed_at": "ended_at",
    "scope": "realm",
    "prev_hash": "hash_before",
    "aggregate_key": "ordering_key",
    "processed_at": "delivered_at",
    "claimed_until": "leased_until",
    "attempts": "tries",
    "event_id": "fact_id",
    "retry_count": "retries",
    "retry_after": "not_before",
    "agent_name": "worker_name",
    "agents_paused": "is_paused",
    "txid": "tx",
    "last_id": "newest_id",
}
VALUES = {
    "dead_letter_queue": {"pending": "waiting", "replaying": "in_progress", "resolved": "done"},
    "agent_tasks": {"completed": "succeeded"},
    "replay_runs": {"started": "under way", "stopped": "halted"},
}
ROLES = {"authenticated": "app_user", "anon": "Nobody Known", "replay_worker": "backend"}
FUNCTION = "app.flag_on"


def names(**other: Any) -> dict[str, Any]:
    """The values of `names:` for such a database."""
    return {
        "schema": "app",
        "tables": {
            table: {
                "is": real,
                "columns": columns_of(table),
                "values": {"status": VALUES[table]} if table in VALUES else {},
            }
            for table, real in TABLES.items()
        },
        "functions": {"is_feature_enabled": {"is": FUNCTION, "arguments": ["company", "key"]}},
        "roles": ROLES,
        **other,
    }


def columns_of(table: str) -> dict[str, str]:
    return {c: COLUMNS[c] for c in contract().relations[table].columns if c in COLUMNS}


def rename(connection: psycopg.Connection[Any], *, roles: bool = True) -> None:
    """Rename everything, in the transaction of the connection, by few texts; roles belong to the whole server."""
    _run(connection, ["create schema app", "create schema ops", "grant usage on schema app, ops to public"])
    _run(connection, [*_states(connection), *_relations(connection)])
    of_roles = (f'alter role {role} rename to "{real}"' for role, real in ROLES.items())
    _run(connection, [*_functions(connection), *(of_roles if roles else ())])


def _run(connection: psycopg.Connection[Any], statements: Iterable[str]) -> None:
    psycopg.Cursor(connection).execute(";\n".join(statements).encode())


def _relations(connection: psycopg.Connection[Any]) -> Iterator[str]:
    found = connection.execute(
        "select c.relname::text as name, array_agg(a.attname::text) as columns from pg_class c"
        " join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped"
        " where c.relnamespace = 'public'::regnamespace group by 1"
    ).fetchall()
    columns = {one["name"]: one["columns"] for one in found}
    for table in filter(columns.get, TABLES):
        schema, _, name = TABLES[table].partition(".")
        alter = "alter view" if contract().relations[table].is_view else "alter table"
        for old in filter(COLUMNS.get, columns[table]):
            yield f"{alter} public.{table} rename column {old} to {COLUMNS[old]}"
        yield f"{alter} public.{table} rename to {name}"
        yield f"{alter} public.{name} set schema {schema}"


def move_claim(connection: psycopg.Connection[Any], path: str) -> None:
    """Let the function that reads the claims take the tenant from another claim, and return it as `company_id`."""
    _told_by(connection, f"auth.whole_jwt() #> '{{{','.join(path.split('.'))}}}'")


MEMBERS = {"is": "memberships", "company": "team", "user": "person", "users": ["people"], "also": {"part": "'admin'"}}


def by_members(connection: psycopg.Connection[Any]) -> None:
    """Let the table of MEMBERS name the tenant of a user; the claims name only the user."""
    connection.execute("create table public.people (id uuid primary key)")
    connection.execute(
        "create table public.memberships (team uuid references public.companies, person uuid references public.people,"
        " part text not null check (part in ('admin', 'guest')), primary key (team, person))"
    )
    connection.execute(
        "create function auth.team() returns uuid language plpgsql stable security definer set search_path = '' as $$"
        " begin return (select team from public.memberships where person::text = auth.whole_jwt() ->> 'sub'); end $$"
    )
    _told_by(connection, "auth.team()")
    connection.execute("grant execute on function auth.team() to public")


def _told_by(connection: psycopg.Connection[Any], tenant: str) -> None:
    """Let the claims function return the value of this expression as `company_id`."""
    whole = connection.execute("select pg_get_functiondef('auth.jwt()'::regprocedure) as text").fetchone()
    assert whole is not None
    connection.execute(whole["text"].replace("auth.jwt()", "auth.whole_jwt()").encode())
    connection.execute(
        "create or replace function auth.jwt() returns jsonb language sql stable set search_path = '' as $$"
        " select case when jsonb_typeof(auth.whole_jwt()) = 'object' then auth.whole_jwt() else '{}' end"
        f" || jsonb_build_object('company_id', {tenant}) $$"
    )
    connection.execute("grant execute on function auth.jwt(), auth.whole_jwt() to public")


def _states(connection: psycopg.Connection[Any]) -> Iterator[str]:
    """Rename states: replace the CHECK by one with the new names."""
    checks = connection.execute(
        "select c.relname::text as of, quote_ident(o.conname) as name, pg_get_constraintdef(o.oid) as said"
        " from pg_constraint o join pg_class c on c.oid = o.conrelid where c.relnamespace = 'public'::regnamespace"
        " and c.relname = any(%s) and o.contype = 'c' and pg_get_constraintdef(o.oid) ~ 'status'",
        ([*VALUES],),
    ).fetchall()
    for check in checks:
        yield f"alter table public.{check['of']} drop constraint {check['name']}"
    for table, values in VALUES.items():
        for old, new in values.items():
            yield f"update public.{table} set status = '{new}' where status = '{old}'"
    yield "set constraints all immediate"
    for check in checks:
        said = check["said"]
        for old, new in VALUES[check["of"]].items():
            said = said.replace(f"'{old}'", f"'{new}'")
        yield f"alter table public.{check['of']} add constraint {check['name']} {said}"
    for table, first in (("dead_letter_queue", "pending"), ("replay_runs", "started")):
        yield f"alter table public.{table} alter status set default '{VALUES[table][first]}'"


def _functions(connection: psycopg.Connection[Any]) -> Iterator[str]:
    """Replace the names in the bodies of functions, which are text."""
    found = connection.execute(
        "select pg_get_functiondef(p.oid) as text from pg_proc p join pg_language l on l.oid = p.prolang"
        " where p.pronamespace = 'public'::regnamespace and l.lanname in ('sql', 'plpgsql') and p.prosqlbody is null"
        " and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')"
    ).fetchall()
    yield from (_rewritten(function["text"]) for function in found)
    if connection.execute("select to_regprocedure('public.is_feature_enabled(text, uuid)') as f").fetchone()["f"]:  # type: ignore[index]
        yield "alter function public.is_feature_enabled(text, uuid) rename to is_on_for"
        yield (
            f"create function {FUNCTION}(company uuid, key text) returns boolean language sql stable security definer"
            " set search_path = '' as 'select public.is_on_for($2, $1)'"
        )
        yield (
            "update pg_proc set provolatile = (select w.provolatile from pg_proc w where w.proname = 'is_on_for')"
            f" where oid = '{FUNCTION}(uuid, text)'::regprocedure"
        )
        yield f"alter function {FUNCTION} owner to replay_owner"
        yield f"revoke all on function {FUNCTION} from public"


@cache
def _rewritten(text: str) -> str:
    head, mark, text = text.partition("$function$")
    for old, new in sorted(TABLES.items(), key=lambda item: -len(item[0])):
        text = re.sub(rf"\bpublic\.{old}\b(?!\()", new, text)
        text = re.sub(rf"\bpublic\.({old}\w*_seq)\b", rf"{new.partition('.')[0]}.\1", text)
    for old, new in COLUMNS.items():
        text = re.sub(rf"(?<!')\b{old}\b(?!')", new, text)
    return head + mark + text
