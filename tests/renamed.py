"""Makes of a database of the reference one with other schemas, tables, columns, states, functions and roles."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg import sql

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
    """The renamed columns of a table."""
    return {c: COLUMNS[c] for c in contract().relations[table].columns if c in COLUMNS}


def rename(connection: psycopg.Connection[Any], *, roles: bool = True) -> None:
    """Rename everything, in the transaction of the connection; roles belong to the whole server."""
    run = connection.execute
    run("create schema app")
    run("create schema ops")
    run("grant usage on schema app, ops to public")
    _states(connection)
    for table, real in TABLES.items():
        schema, _, name = real.partition(".")
        is_view = contract().relations[table].is_view
        if run("select to_regclass(%s) as found", (f"public.{table}",)).fetchone()["found"] is None:  # type: ignore[index]
            continue
        for column in run(
            "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped",
            (f"public.{table}",),
        ).fetchall():
            old = str(column["attname"])
            if old in COLUMNS:
                _do(connection, "alter {} public.{} rename column {} to {}", is_view, table, old, COLUMNS[old])
        _do(connection, "alter {} public.{} rename to {}", is_view, table, name)
        _do(connection, "alter {} public.{} set schema {}", is_view, name, schema)
    _functions(connection)
    for role, real in ROLES.items() if roles else ():
        run(sql.SQL("alter role {} rename to {}").format(sql.Identifier(role), sql.Identifier(real)))


def move_claim(connection: psycopg.Connection[Any], path: str) -> None:
    """The function that reads the claims finds the tenant elsewhere; policies ask it for `company_id` as before."""
    _told_by(connection, f"auth.whole_jwt() #> '{{{','.join(path.split('.'))}}}'")


MEMBERS = {"is": "memberships", "company": "team", "user": "person", "users": ["people"], "also": {"part": "'admin'"}}


def by_members(connection: psycopg.Connection[Any]) -> None:
    """A table says whose a user is, as MEMBERS names it; the claims say no more than who he is."""
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
    """Policies ask the claims for `company_id` as before, and get what this expression gives."""
    whole = connection.execute("select pg_get_functiondef('auth.jwt()'::regprocedure) as text").fetchone()
    assert whole is not None
    connection.execute(whole["text"].replace("auth.jwt()", "auth.whole_jwt()").encode())
    connection.execute(
        "create or replace function auth.jwt() returns jsonb language sql stable set search_path = '' as $$"
        f" select jsonb_build_object('company_id', {tenant}, 'user_metadata', auth.whole_jwt() -> 'user_metadata') $$"
    )
    connection.execute("grant execute on function auth.jwt(), auth.whole_jwt() to public")


def _do(connection: psycopg.Connection[Any], text: str, is_view: bool, *names: str) -> None:
    kind = sql.SQL("view" if is_view else "table")
    connection.execute(sql.SQL(text).format(kind, *map(sql.Identifier, names)))


def _states(connection: psycopg.Connection[Any]) -> None:
    """Other words for states: the CHECK goes, and comes again with the new ones."""
    for table, values in VALUES.items():
        checks = connection.execute(
            "select conname, pg_get_constraintdef(oid) as said from pg_constraint where conrelid = to_regclass(%s)"
            " and contype = 'c' and pg_get_constraintdef(oid) ~ 'status'",
            (f"public.{table}",),
        ).fetchall()
        for check in checks:
            connection.execute(
                sql.SQL("alter table public.{} drop constraint {}").format(
                    sql.Identifier(table), sql.Identifier(check["conname"])
                )
            )
        for old, new in values.items():
            connection.execute(
                sql.SQL("update public.{} set status = {} where status = {}").format(
                    sql.Identifier(table), sql.Literal(new), sql.Literal(old)
                )
            )
        connection.execute("set constraints all immediate")
        for check in checks:
            said = check["said"]
            for old, new in values.items():
                said = said.replace(f"'{old}'", f"'{new}'")
            connection.execute(
                sql.SQL("alter table public.{} add constraint {} {}").format(
                    sql.Identifier(table), sql.Identifier(check["conname"]), sql.SQL(said)
                )
            )


def _functions(connection: psycopg.Connection[Any]) -> None:
    """The bodies of functions are text: the new names go into them."""
    found = connection.execute(
        "select p.oid, pg_get_functiondef(p.oid) as text from pg_proc p join pg_language l on l.oid = p.prolang"
        " where p.pronamespace = 'public'::regnamespace and l.lanname in ('sql', 'plpgsql') and p.prosqlbody is null"
        " and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')"
    ).fetchall()
    for function in found:
        connection.execute(_rewritten(function["text"]).encode())
    if connection.execute("select to_regprocedure('public.is_feature_enabled(text, uuid)') as f").fetchone()["f"]:  # type: ignore[index]
        connection.execute("alter function public.is_feature_enabled(text, uuid) rename to is_on_for")
        connection.execute(
            f"create function {FUNCTION}(company uuid, key text) returns boolean language sql stable security definer"
            " set search_path = '' as 'select public.is_on_for($2, $1)'"
        )
        connection.execute(
            "update pg_proc set provolatile = (select w.provolatile from pg_proc w where w.proname = 'is_on_for')"
            f" where oid = '{FUNCTION}(uuid, text)'::regprocedure"
        )
        connection.execute(f"alter function {FUNCTION} owner to replay_owner")
        connection.execute(f"revoke all on function {FUNCTION} from public")


def _rewritten(text: str) -> str:
    head, mark, text = text.partition("$function$")
    for old, new in sorted(TABLES.items(), key=lambda item: -len(item[0])):
        text = re.sub(rf"\bpublic\.{old}\b(?!\()", new, text)
        text = re.sub(rf"\bpublic\.({old}\w*_seq)\b", rf"{new.partition('.')[0]}.\1", text)
    for old, new in COLUMNS.items():
        text = re.sub(rf"(?<!')\b{old}\b(?!')", new, text)
    return head + mark + text
