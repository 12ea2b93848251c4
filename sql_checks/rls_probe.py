"""Puts rows of two tenants into every tenant table, looks at them as a tenant, and rolls everything back.

One transaction: nothing of it is ever committed, and the outbox never shows its rows to a worker.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from gates.deployment.database import Connection, connect, execute, sql
from gates.deployment.dialect.current import real_claims
from gates.deployment.failures import in_words
from gates.deployment.ids import new_id

TABLES = Path(__file__).parent / "rls_tables.sql"
REFUSED = "42501"
"""insufficient_privilege, which row security and missing rights give."""
OURS = ("08", "25", "40", "53", "55", "57", "58", "XX")
"""Classes of SQLSTATE that speak of the connection, limits and locks: they say nothing about a policy."""
OF_A_COMPANY = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
"""The text of a company's id; a string of SQL that the names of a deployment change."""
UNRESOLVED = ("3F000", "42703", "42704", "42883", "42P01")
"""SQLSTATEs of a name that was not found. The tenants' own search_path may find it."""
TENANTS_PATH = '"$user", public, extensions'
"""Where a function of the target looks for names when a tenant calls it, unless it says so itself."""

SEEDS: dict[str, str] = {
    "companies": "insert into public.companies (id, name) values (%(id)s::uuid, 'drill-rls-' || left(%(id)s::text, 8))",
    "events": "insert into public.events (company_id, event_type, aggregate_key, payload, path)"
    " values (%(id)s, 'drill.rls', 'rls', '{}', 'outbox')",
    "feature_flags": "insert into public.feature_flags (key, company_id, enabled, rollout_percentage)"
    " values ('drill.rls', %(id)s, false, 0)",
    "replay_budgets": "insert into public.replay_budgets (company_id) values (%(id)s)",
    "edge_rate_limits": "insert into public.edge_rate_limits (key, hits)"
    " values ('replay:' || %(id)s || ':192.0.2.1', array[now()])",
    "replay_runs": "insert into public.replay_runs"
    " (idempotency_key, company_id, actor, payload_hash, status, completed_at)"
    " values ('drill-rls', %(id)s, 'drill', '', 'completed', now())",
    "audit_logs": "insert into public.audit_logs (action, actor, scope) values ('dlq_replay_dry_run', 'drill', %(id)s)",
    "event_outbox": "insert into public.event_outbox (company_id, event_type, payload)"
    " values (%(id)s, 'drill.rls', '{}')",
    "dead_letter_queue": "insert into public.dead_letter_queue (company_id, event_type, payload, error_type)"
    " values (%(id)s, 'drill.rls', '{}', 'drill')",
    "agent_tasks": "insert into public.agent_tasks (company_id, agent_name, status) values (%(id)s, 'drill', 'queued')",
    "agent_controls": "insert into public.agent_controls (company_id, agents_paused) values (%(id)s, false)",
}
"""Rows by the contract's names alone; companies first, so that foreign keys hold."""


@dataclass(frozen=True, slots=True)
class TenantTable:
    """A table or view with tenant data. `tenant`: the SQL expression of a row's tenant.

    is_contract: it has a name in the contract, by which it is looked at; `shown` is its real one.
    """

    schema: str
    name: str
    shown: str
    is_contract: bool
    promised: bool
    is_view: bool
    tenant: str
    tenant_column: str

    @property
    def reference(self) -> str:
        return f"public.{self.name}" if self.is_contract else f'"{self.schema}"."{self.name}"'


@dataclass(frozen=True, slots=True)
class Attempt:
    """The result of one statement of a tenant: rows it saw or touched, or the error with its SQLSTATE."""

    rows: int = 0
    state: str = ""
    error: str = ""

    @property
    def refused(self) -> bool:
        return self.state == REFUSED

    @property
    def raised(self) -> bool:
        """Whether the target's own policy, view or function raised it, since the login runs the same statement."""
        ours = not self.state or self.state.startswith(OURS) or self.state in UNRESOLVED
        return bool(self.error) and not self.refused and not ours

    @property
    def unclear(self) -> bool:
        """Neither rows nor a refusal nor the target's own error: it proves nothing."""
        return bool(self.error) and not self.refused and not self.raised


@dataclass
class Sight:
    """What the probe saw of one table. `mine`: the tenant it looked as; `other`: another tenant with rows, or ''.

    error: why the login itself could not count its rows. seen: attempts by name; several of a kind are `kind:case`.
    """

    table: TenantTable
    mine: str
    other: str
    owner_mine: int
    owner_other: int
    error: str = ""
    seen: dict[str, Attempt] = field(default_factory=dict)


@dataclass
class Probe:
    """All that one probe saw. `exempt`: why it proves nothing, or ''."""

    exempt: str = ""
    sights: list[Sight] = field(default_factory=list)


def probe(url: str) -> Probe:
    """Look at every tenant table as a tenant. Raise psycopg.Error where there is no database."""
    connection = connect(url, autocommit=False)
    try:
        return _look(connection)
    finally:
        if not connection.closed:
            connection.rollback()
        connection.close()


def _look(connection: Connection) -> Probe:
    found = Probe(exempt=_exemption(connection))
    if found.exempt:
        return found
    mine, other, bystander = (new_id("company") for _ in range(3))
    seeded = {name for name in SEEDS if _seed(connection, name, mine) and _seed(connection, name, other)}
    _seed(connection, "companies", bystander)  # has no rows: an insert for it meets no other row's unique key
    if "audit_logs" in seeded:
        seeded.add("audit_heads")
    tables = [TenantTable(**row) for row in execute(connection, sql(TABLES))]  # type: ignore[arg-type]
    sights = (_sight(connection, t, mine, other, seeded=t.name in seeded) for t in tables)
    found.sights = [sight for sight in sights if sight is not None]
    for sight in found.sights:  # before any claims are set: what was set once reads as '' and never as unset again
        _probe_claims(connection, sight, UNSET)
    for sight in found.sights:
        _probe_reads(connection, sight)
        _probe_claims(connection, sight, _claims_to_try(sight.mine))
        if not sight.table.is_view and sight.mine == mine:  # never tries to write rows that are not the probe's own
            _probe_writes(connection, sight, bystander)
    return found


def _exemption(connection: Connection) -> str:
    """Why SET ROLE authenticated would prove nothing."""
    row = execute(
        connection,
        "select r.rolsuper or r.rolbypassrls as above, (select string_agg(distinct c.relname, ', ') from pg_class c"
        " where c.relnamespace in (select oid from pg_namespace where nspname = any('{public}'))"
        " and c.relkind in ('r', 'p')"
        " and pg_has_role(r.oid, c.relowner, 'MEMBER')) as owns from pg_roles r where r.rolname = 'authenticated'",
    )
    if not row:
        return "there is no role authenticated: tenants cannot be imitated"
    if row[0]["above"]:
        return "the role authenticated is superuser or BYPASSRLS: row security does not bind it"
    if row[0]["owns"]:
        return f"the role authenticated owns {row[0]['owns']}: looking as an owner proves nothing"
    allowed = _attempt(connection, lambda c: c.execute("set local role authenticated"))
    return f"this login may not SET ROLE authenticated: {allowed.error}" if allowed.error else ""


def _seed(connection: Connection, name: str, company: str) -> bool:
    """Whether a row of the company could be put into the table."""
    done = _attempt(connection, lambda c: c.execute(SEEDS[name].encode(), {"id": company}), keep=True)
    return not done.error


def _sight(connection: Connection, table: TenantTable, mine: str, other: str, *, seeded: bool) -> Sight | None:
    """Count as the login what is there of both tenants; tables we could not write to are judged by rows they have."""
    if not seeded and not _count(connection, table, mine).rows:
        mine, other = _two_tenants(connection, table)
    if not mine:
        return None
    counts = [_count(connection, table, tenant) for tenant in (mine, other)]
    return Sight(table, mine, other, counts[0].rows, counts[1].rows, counts[0].error)


def _two_tenants(connection: Connection, table: TenantTable) -> tuple[str, str]:
    """Two tenants with rows in a table; a random one, who has none, where there is only one."""
    rows: list[dict[str, object]] = []

    def read(c: Connection) -> psycopg.Cursor[dict[str, object]]:
        query = f"select distinct tenant from (select {table.tenant} as tenant from {table.reference} limit 1000) t"
        rows.extend(execute(c, f"{query} where tenant ~ '{OF_A_COMPANY}' order by 1 limit 2"))
        return c.execute("select 1")

    _attempt(connection, read)
    found = [str(row["tenant"]) for row in rows]
    return (found[0], found[1] if len(found) > 1 else new_id("company")) if found else ("", "")


def _count(connection: Connection, table: TenantTable, tenant: str) -> Attempt:
    query = f"select from {table.reference} where {table.tenant} = %s limit 1000"
    return _attempt(connection, lambda c: c.execute(query.encode(), (tenant,)))


def _probe_reads(connection: Connection, sight: Sight) -> None:
    """Look as the tenant itself: at its own rows, and at those of all others."""
    table = sight.table
    with _role(connection, "authenticated", _claims(sight.mine)):
        sight.seen["own"] = _count(connection, table, sight.mine)
        sight.seen["foreign"] = _attempt(
            connection,
            lambda c: c.execute(
                f"select from {table.reference} where {table.tenant} is distinct from %s"
                f" and {table.tenant} is not null limit 1000".encode(),
                (sight.mine,),
            ),
        )
        sight.seen["row_security_off"] = _attempt(connection, lambda c: _without_row_security(c, table, sight.mine))


UNSET = (("no_claims", "authenticated", None), ("anon:unset", "anon", None))


def _claims_to_try(mine: str) -> Iterator[tuple[str, str, str]]:
    """Claims under which no row may be seen: the name of the attempt, the role, the text of the claims."""
    for role, name in (("authenticated", "stranger"), ("anon", "anon:stranger")):
        yield name, role, _claims(new_id("company"), role)
    yield "anon:company", "anon", _claims(mine, "anon")
    for role, empty, without in (("authenticated", "empty_claims", "no_company"), ("anon", "anon:empty", "anon")):
        yield empty, role, ""
        yield f"{without}:object", role, "{}"
        yield f"{without}:subject", role, _said({"sub": str(uuid.uuid4()), "role": role})
    for number, company in enumerate((None, "", "%", "null", [mine], {"id": mine}, True)):
        yield f"garbage:{number}", "authenticated", _said({"company_id": company, "sub": str(uuid.uuid4())})
    for number, text in enumerate(("not json", "[]", "null", '"x"', "0", json.dumps([{"company_id": mine}]))):
        yield f"garbage:text-{number}", "authenticated", text


def _probe_claims(connection: Connection, sight: Sight, tries: Iterable[tuple[str, str, str | None]]) -> None:
    """Ask for everything under claims that show nothing."""
    # a table of the deployment's own may hold rows of no tenant, which everybody may read
    of_tenants = "" if sight.table.promised else f" where {sight.table.tenant} is not null"
    everything = f"select from {sight.table.reference}{of_tenants} limit 1000"
    for name, role, claims in tries:
        with _role(connection, role, claims) as allowed:
            if allowed:
                sight.seen[name] = _attempt(connection, lambda c: c.execute(everything.encode()))


def _without_row_security(connection: Connection, table: TenantTable, mine: str) -> psycopg.Cursor[dict[str, object]]:
    connection.execute("set local row_security = off")
    query = f"select from {table.reference} where {table.tenant} is distinct from %s"
    query += " limit 1000" if table.promised else f" and {table.tenant} is not null limit 1000"
    return connection.execute(query.encode(), (mine,))


def _probe_writes(connection: Connection, sight: Sight, bystander: str) -> None:
    table, other = sight.table, sight.other
    where_other = f"where {table.tenant} = %s"
    moved = _moved(table, other)
    with _role(connection, "authenticated", _claims(sight.mine)):
        if table.name in SEEDS and table.promised:
            victim = new_id("company") if table.name == "companies" else bystander
            sight.seen["insert"] = _attempt(connection, lambda c: c.execute(SEEDS[table.name].encode(), {"id": victim}))
        sight.seen["move"] = _attempt(
            connection,
            lambda c: c.execute(
                f"update {table.reference} set {table.tenant_column} = %s where {table.tenant} = %s".encode(),
                (moved, sight.mine),
            ),
        )
        sight.seen["update"] = _attempt(
            connection,
            lambda c: c.execute(
                f"update {table.reference} set {table.tenant_column} = {table.tenant_column} {where_other}".encode(),
                (other,),
            ),
        )
        sight.seen["delete"] = _attempt(
            connection, lambda c: c.execute(f"delete from {table.reference} {where_other}".encode(), (other,))
        )
        if table.name == "feature_flags" and table.promised:
            upsert = SEEDS["feature_flags"] + " on conflict (key, company_id) do update set enabled = true"
            sight.seen["upsert"] = _attempt(connection, lambda c: c.execute(upsert.encode(), {"id": other}))
        if table.name == "replay_budgets" and table.promised:
            upsert = SEEDS["replay_budgets"] + " on conflict (company_id) do update set daily_limit = 1"
            sight.seen["upsert"] = _attempt(connection, lambda c: c.execute(upsert.encode(), {"id": other}))


def _moved(table: TenantTable, other: str) -> str:
    return f"replay:{other}:192.0.2.9" if table.name == "edge_rate_limits" else other


def _claims(company: str, role: str = "authenticated") -> str:
    """As Supabase sets them: `sub` is a UUID, since auth.uid() reads it as one."""
    return _said({"sub": str(uuid.uuid4()), "role": role, "company_id": company})


def _said(claims: Mapping[str, object]) -> str:
    """Claims as the deployment has them, as the text of the setting."""
    return json.dumps(real_claims(claims))


@contextmanager
def _role(connection: Connection, role: str, claims: str | None) -> Iterator[bool]:
    """Be a role with claims (None: unset) until the end of the block. Gives whether the login may be it."""
    execute(connection, "savepoint rls_role")
    try:
        execute(connection, "select pg_catalog.set_config('search_path', %s, true)", TENANTS_PATH)
        execute(connection, f'set local role "{role}"')
        if claims is not None:
            execute(connection, "select pg_catalog.set_config('request.jwt.claims', %s, true)", claims)
        allowed = True
    except psycopg.Error:
        allowed = False
        execute(connection, "rollback to savepoint rls_role")
    try:
        yield allowed
    finally:
        execute(connection, "rollback to savepoint rls_role")
        execute(connection, "release savepoint rls_role")


def _attempt(
    connection: Connection,
    run: Callable[[Connection], psycopg.Cursor[dict[str, object]]],
    *,
    keep: bool = False,
) -> Attempt:
    """Run one statement in a savepoint; undo it unless `keep`."""
    execute(connection, "savepoint rls_attempt")
    try:
        rows = max(run(connection).rowcount, 0)
    except psycopg.Error as error:
        execute(connection, "rollback to savepoint rls_attempt")
        return Attempt(state=error.sqlstate or "", error=in_words(error))
    if not keep:
        execute(connection, "rollback to savepoint rls_attempt")
    execute(connection, "release savepoint rls_attempt")
    return Attempt(rows=rows)
