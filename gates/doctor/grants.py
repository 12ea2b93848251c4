"""The script that creates a least-privilege login for the gate, in this deployment's own names. Pure. It is for review
and for psql: the password is a variable of psql, and nothing is run here.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from gates.contract.names import Names
from gates.contract.queues import Queue
from gates.doctor.comparison.compare import Comparison
from gates.doctor.matching.actors import SEES_ALL, FoundMembers, FunctionMatch, tenant_claim, tenant_members
from gates.doctor.matching.tables import TableMatch
from gates.doctor.reading.schema import Schema, identifier
from gates.text import characters

LOGIN, NO_NAMES = "replay_gate", Names()
OWN_ROWS = ("companies", "event_outbox", "events", "dead_letter_queue", "replay_budgets", "replay_runs", "agent_tasks")
"""Tables in which the gate writes only rows of its own tenants."""
ANY_ROWS = ("feature_flags", "agent_controls", "edge_rate_limits")
"""Tables in which it steps a flag, pauses in an emergency, and clears limits."""
APPENDED = ("audit_logs",)
TENANT_ROLES = ("authenticated", "anon")
DRILL = "drill-"
"""The prefix of the names of the gate's tenants."""


@dataclass(frozen=True, slots=True)
class _Script:
    """What is granted: real tables by name of the contract, functions, roles."""

    tables: dict[str, TableMatch]
    functions: list[FunctionMatch]
    roles: list[str]
    members: FoundMembers | None
    own: list[tuple[str, str, str, bool]]
    """Schema, name and tenant column of each of `own_tables`, and whether row-level security is on."""


def grants(
    schema: Schema, found: Comparison, login: str = LOGIN, names: Names = NO_NAMES, queues: Sequence[Queue] = ()
) -> str:
    """The script, or a statement that there is nothing to grant if neither a contract table nor a queue was found.
    names: what gate.yaml says.
    """
    tables = {n: m for n, m in found.tables.items() if "." not in m.table.qualified.partition(".")[2]}
    named = dict.fromkeys(found.roles[n].role.name for n in TENANT_ROLES if n in found.roles)
    roles = [name for name in named if name != login]
    claim = tenant_claim([*tables.values()], schema)
    members = None if claim.claim else tenant_members(tables, schema)
    secured = {(t.schema, t.name): t.secured for t in schema.tables}
    own = [(*told, secured.get(told[:2], False)) for told in names.own_tables]
    script = _Script(tables, [*found.functions.values()], roles, members, own)
    body = [*(_body(script, login) if tables else ()), *_queues(schema, queues, login)]
    lines = [*_head(schema, login), *(body or ["-- neither a table of the contract nor a queue was found"])]
    return "\n".join(lines) + "\n"


def _head(schema: Schema, login: str) -> Iterator[str]:
    database = characters.line(schema.database) or "the database"
    yield f"-- A login for the gate on {database}: it sees all rows, and writes its own tenants', flags and pauses."
    yield "-- Review it, then run it as an owner of the tables who may create roles:"
    yield '--   gate_password="$(openssl rand -hex 24)"'
    yield '--   psql "$OWNER_URL" -v ON_ERROR_STOP=1 -v gate_password="$gate_password" -f gate-login.sql'
    yield "-- NOINHERIT: it steps into a tenant's role to see what tenants see, and has none of its rights otherwise."
    yield "-- A table that is busy for 3 s ends the script, so that nobody waits for it: run it again."
    yield "-- Run it again after a migration, or for another database of the server: the role may be there already."
    me = identifier(login)
    yield f"do $$ begin create role {me} login noinherit nosuperuser nocreatedb nocreaterole nobypassrls;"
    yield "exception when duplicate_object then null; end $$;"
    yield f"alter role {me} password :'gate_password';"
    yield f"grant connect on database {identifier(schema.database)} to {me};" if schema.database else ""


def _body(script: _Script, login: str) -> Iterator[str]:
    me = identifier(login)
    yield from _at_once([f"grant {identifier(role)} to {me};" for role in script.roles])
    named = {m.table.schema for m in script.tables.values()} | {o[0] for o in script.own}
    schemas = sorted(named | {f.function.schema for f in script.functions})
    yield f"grant usage on schema {', '.join(map(identifier, schemas))} to {me};"
    yield f"grant select on {', '.join(_tables(script, script.tables))} to {me};"
    for names, rights in ((OWN_ROWS + ANY_ROWS, "insert, update, delete"), (APPENDED, "insert")):
        listed = [*_tables(script, names)]
        if listed:
            yield f"grant {rights} on {', '.join(listed)} to {me};"
    yield f"grant usage on all sequences in schema {', '.join(map(identifier, _schemas_written(script)))} to {me};"
    for one in script.functions:
        kinds = ", ".join(one.function.arguments)
        yield f"grant execute on function {identifier(one.function.schema, one.function.name)}({kinds}) to {me};"
    yield from _policies(script, login)
    yield from _members(script, login)
    yield from _own_tables(script, login)
    yield from _deep(script, login)


def _queues(schema: Schema, queues: Sequence[Queue], login: str) -> Iterator[str]:
    here = {(t.schema, t.name) for t in schema.tables}
    for queue in queues:
        since = [grant for table, grant in queue.preset.grants_since.items() if (queue.schema, table) in here]
        for grant in (*queue.preset.grants, *since):
            yield f"{queue.named(grant).replace('{{login}}', identifier(login))};"


def _deep(script: _Script, login: str) -> Iterator[str]:
    """What only deep drills need, as comments: to be granted on purpose."""
    me = identifier(login)
    yield "-- For `gate run --deep` on staging, never on production: uncomment the lines below; run as superuser."
    yield "-- On PostgreSQL before 16 use a superuser for deep drills instead: a noinherit role ends no sessions there."
    yield f"-- grant pg_signal_backend to {me} with inherit true;"
    for table in _tables(script, ("audit_heads",)):
        yield f"-- grant update on {table} to {me};"
        if script.tables["audit_heads"].table.secured:
            yield from (f"-- {line}" for line in _policy(login, "_updates", table, "update", "using (true)"))


def _own_tables(script: _Script, login: str) -> Iterator[str]:
    """Rows that the service writes for the gate's own tenants outside the contract's tables, for the gate to remove."""
    me = identifier(login)
    for schema, name, column, secured in script.own:
        table, rows = identifier(schema, name), _own(script, identifier(column))
        yield f"grant select, delete on {table} to {me};"
        if secured and rows:
            seen = _policy(login, SEES_ALL, table, "select", f"using ({rows})")
            yield from _at_once([*seen, *_policy(login, "_deletes", table, "delete", f"using ({rows})")])


def _members(script: _Script, login: str) -> Iterator[str]:
    """Members of the gate's own tenants: users, which only the owner of the users lets it create."""
    found = script.members
    if found is None:
        return
    table, me = identifier(found.table.schema, found.table.name), identifier(login)
    yield f"grant select, insert, delete on {table} to {me};"
    rows = _own(script, identifier(found.company))
    if found.table.secured and rows:
        seen = _policy(login, SEES_ALL, table, "select", "using (true)")
        made = _policy(login, "_inserts", table, "insert", f"with check ({rows})")
        yield from _at_once([*seen, *made, *_policy(login, "_deletes", table, "delete", f"using ({rows})")])
    for users in found.users:
        name = identifier(*users.split(".", 1))
        yield "-- by who owns it, for without it no tenant can be imitated:"
        yield f"-- grant select, insert, delete on {name} to {me};"


def _schemas_written(script: _Script) -> list[str]:
    written = (*OWN_ROWS, *ANY_ROWS, *APPENDED)
    return sorted({m.table.schema for n, m in script.tables.items() if n in written}) or ["public"]


def _tables(script: _Script, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name in script.tables:
            table = script.tables[name].table
            yield identifier(table.schema, table.name)


def _policies(script: _Script, login: str) -> Iterator[str]:
    """With row-level security: see every row, write rows of its own tenants.

    Each table has a transaction of its own. A policy locks its table; who holds one table and waits for the next one
    meets the service in the other order, and the deadlock takes back what a customer asked for.
    """
    secured = {n: m for n, m in script.tables.items() if m.table.secured and not m.table.is_view}
    for name, one in secured.items():
        table = identifier(one.table.schema, one.table.name)
        lines = [*_policy(login, SEES_ALL, table, "select", "using (true)")]
        rows = _rows(script, name, one)
        if rows:
            lines += _policy(login, "_inserts", table, "insert", f"with check ({rows})")
        if rows and name not in APPENDED:
            lines += _policy(login, "_updates", table, "update", f"using ({rows}) with check ({rows})")
            lines += _policy(login, "_deletes", table, "delete", f"using ({rows})")
        yield from _at_once(lines)


def _at_once(lines: Sequence[str]) -> Iterator[str]:
    """One transaction of these statements, which waits for no busy table, and tells nothing of what is there."""
    if lines:
        yield from ("begin; set local lock_timeout = '3s'; set local client_min_messages = warning;", *lines, "commit;")


def _policy(login: str, kind: str, table: str, act: str, rule: str) -> Iterator[str]:
    """One policy of the login, after dropping that of an earlier run of the script."""
    name = identifier(f"{login}{kind}")
    yield f"drop policy if exists {name} on {table};"
    yield f"create policy {name} on {table} for {act} to {identifier(login)} {rule};"


def _rows(script: _Script, name: str, one: TableMatch) -> str:
    """Which rows the gate may write: an expression, or nothing."""
    if name in ANY_ROWS or name in APPENDED:
        return "true"
    if name == "companies" and "name" in one.columns:
        return f"{identifier(one.columns['name'].column.name)} like '{DRILL}%'"
    if name not in OWN_ROWS or "company_id" not in one.columns:
        return ""
    return _own(script, identifier(one.columns["company_id"].column.name))


def _own(script: _Script, tenant: str) -> str:
    """Whether a tenant is one of the gate's, in SQL; empty if no company name tells."""
    companies = script.tables.get("companies")
    if companies is None or not {"id", "name"} <= set(companies.columns):
        return ""
    label, key = (identifier(companies.columns[name].column.name) for name in ("name", "id"))
    home = identifier(companies.table.schema, companies.table.name)
    return f"exists (select from {home} c where c.{key} = {tenant} and c.{label} like '{DRILL}%')"
