"""Writes rows of two tenants to every tenant table, reads and changes them as a tenant, and rolls everything back.

All in one transaction that is never committed, so that no worker ever sees the outbox rows.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from gates.contract.contract import contract
from gates.deployment.dialect.current import current, tenant_session
from gates.deployment.ids import alike_ids, new_id
from gates.deployment.sql.catalogue import identifier, with_fragments
from gates.deployment.sql.database import Connection, connect, execute, sql
from gates.deployment.sql.locks import naming_holders
from gates.deployment.tenants import members
from sql_checks.attempts import functions
from sql_checks.attempts.statements import Attempt, TenantStatement, attempt
from sql_checks.attempts.tenants import digest_of, rows_of, text_of, told_apart

TABLES = Path(__file__).with_name("tables.sql")
OF_A_COMPANY = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
"""The text of a company's id; a string of SQL that the names of a deployment change."""
PAYLOAD = "jsonb_build_object('drill', gen_random_uuid())"
"""Its own for each row, by which it is known where only the payload is shown."""
SEEDS: dict[str, str] = {
    "companies": "insert into public.companies (id, name) values (%(id)s::uuid, 'drill-rls-' || left(%(id)s::text, 8))",
    "events": "insert into public.events (company_id, event_type, aggregate_key, payload, path)"
    f" values (%(id)s, 'drill.rls', 'rls', {PAYLOAD}, 'outbox')",
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
    f" values (%(id)s, 'drill.rls', {PAYLOAD})",
    "dead_letter_queue": "insert into public.dead_letter_queue (company_id, event_type, payload, error_type)"
    f" values (%(id)s, 'drill.rls', {PAYLOAD}, 'drill')",
    "agent_tasks": "insert into public.agent_tasks (company_id, agent_name, status) values (%(id)s, 'drill', 'queued')",
    "agent_controls": "insert into public.agent_controls (company_id, agents_paused) values (%(id)s, false)",
}
"""Rows by the contract's names alone; companies first, so that foreign keys hold."""
OTHER_STATES = {
    "dead_letter_queue (company_id, event_type, payload, error_type, error_message)"
    f" values (%(id)s, %(state)s, {PAYLOAD}, 'drill', gen_random_uuid()::text)": ("drill.x",),
    "dead_letter_queue (company_id, event_type, payload, error_type, status, created_at)"
    f" values (%(id)s, 'drill.rls', {PAYLOAD}, 'drill', %(state)s, now() - interval '90 days')": (
        *("replaying", "resolved", "discarded"),
    ),
    "replay_runs (idempotency_key, company_id, status, requested_at)"
    " values ('drill-rls-' || %(state)s, %(id)s, %(state)s, now() - interval '90 days')": (
        *("started", "stopped", "failed"),
    ),
    "agent_tasks (company_id, agent_name, status, created_at)"
    " values (%(id)s, 'drill', %(state)s, now() - interval '90 days')": ("running", "completed", "failed"),
    f"event_outbox (company_id, event_type, payload, processed_at) values (%(id)s, %(state)s, {PAYLOAD}, now())": (
        "drill.x",
    ),
    f"event_outbox (company_id, event_type, payload, dead_at) values (%(id)s, %(state)s, {PAYLOAD}, now())": (
        "drill.x",
    ),
    "events (company_id, event_type, payload, path, created_at)"
    f" values (%(id)s, 'drill.rls', {PAYLOAD}, %(state)s, now() - interval '90 days')": ("direct",),
    "audit_logs (action, actor, scope) values (%(state)s, 'drill', %(id)s)": ("dlq_replay_refused", "agents_paused"),
}
"""Rows in other states than the seeds, and old ones: a policy may open these alone. A refused one does not count."""
UPSERTS = {
    "feature_flags": "(key, company_id) do update set enabled = true",
    "replay_budgets": "(company_id) do update set daily_limit = 1",
    "replay_runs": "(idempotency_key, company_id) do update set status = 'failed'",
    "agent_controls": "(company_id) do update set agents_paused = true",
}
"""Inserts that could change another tenant's row."""
MOST_ROWS = 1000
"""Rows that are read to find two tenants."""
AT_ONCE = 4
"""Tables in one round trip, which counts as one statement for the server's time limit."""


@dataclass(frozen=True, slots=True)
class TenantTable:
    """A table or view with tenant data. `tenant`: the SQL expression of a row's tenant.

    is_contract: it is an object of the contract, and read by that name; `shown` is its real name.
    is_open: everybody may read it (PUBLIC), or a role that is called anon.
    untrusted_owner: the owner whose code would run with the gate's rights if it were read; '' where it may be read.
    """

    schema: str
    name: str
    shown: str
    is_contract: bool
    promised: bool
    is_view: bool
    tenant: str
    tenant_column: str
    untrusted_owner: str = ""
    is_open: bool = False

    @property
    def is_of_tenants(self) -> bool:
        """Whether every row belongs to a tenant. Rows for everybody (of flags, pauses, or in a table of the
        deployment's own) may be read by every tenant.
        """
        return self.promised and "company_id" not in contract().relations[self.name].nulls

    @property
    def reference(self) -> str:
        return f"public.{self.name}" if self.is_contract else identifier(self.schema, self.name)


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
class RlsProbe:
    """All that one probe saw. `exempt`: why it proves nothing, or ''. unread: what tenants may reach, and the gate must
    not read. told: what tenants learn of others by functions, and by tables of no tenant.
    """

    exempt: str = ""
    sights: list[Sight] = field(default_factory=list)
    unread: list[TenantTable] = field(default_factory=list)
    told: functions.Learned = field(default_factory=functions.Learned)


def probe(url: str, *, may_write: bool = True) -> RlsProbe:
    """Look at every tenant table as a tenant. may_write: whether functions that may write are called, too. Raise
    psycopg.Error where there is no database.
    """
    connection = connect(url, autocommit=False)
    try:
        with naming_holders(connection):
            return _look(connection, may_write=may_write)
    finally:
        if not connection.closed:
            connection.rollback()
        connection.close()


def _look(connection: Connection, *, may_write: bool) -> RlsProbe:
    found = RlsProbe(exempt=_exemption(connection))
    if found.exempt:
        return found
    (mine, other), bystander = alike_ids("company"), new_id("company")
    seeded = _seed(connection, mine, other, bystander)
    tables = [TenantTable(**row) for row in execute(connection, with_fragments(sql(TABLES)))]  # type: ignore[arg-type]
    found.unread = [table for table in tables if table.untrusted_owner]
    trusted = [table for table in tables if not table.untrusted_owner]
    found.sights = _sights(connection, trusted, mine, other, seeded)
    found.exempt = _join(connection, found.sights, mine, other)
    if found.exempt:
        return found
    # before any claims are set: afterwards the setting reads as '', never as unset
    _try(connection, [(sight, name, one) for sight in found.sights for name, one in _claimed(sight, UNSET)])
    for start in range(0, len(found.sights), AT_ONCE):
        some = found.sights[start : start + AT_ONCE]
        _try(connection, [(sight, name, one) for sight in some for name, one in _tries(sight, mine, bystander)])
    both = {
        s.table.shown.rpartition(".")[2].strip('"'): (s.table.reference, s.table.tenant)
        for s in found.sights
        if s.table.promised and s.mine == mine and s.owner_other
    }
    texts = {name: [rows_of(connection, *rows, company) for company in (mine, other)] for name, rows in both.items()}
    digests = {name: digest_of(*rows) for name, rows in both.items()}
    hidden = {sight.table.shown for sight in found.sights if "own" not in sight.seen or sight.seen["own"].error}
    rows = {t.shown: text_of(t.reference, t.tenant, mine) for t in trusted if t.shown not in hidden}
    reads = [TenantStatement(f"{query} limit 0", (), "authenticated", _claims(mine)) for query in rows.values()]
    own = {name: rows[name] for name, one in zip(rows, attempt(connection, reads), strict=True) if not one.error}
    tenants = told_apart(mine, _claims(mine), other, texts, digests, own)
    found.told = functions.called(connection, tenants, may_write=may_write)
    return found


def _tries(sight: Sight, mine: str, bystander: str) -> Iterator[tuple[str, TenantStatement]]:
    yield from _reads(sight)
    yield from _claimed(sight, _claims_to_try(sight.mine))
    if not sight.table.is_view and sight.mine == mine:  # never tries to write rows that are not the probe's own
        yield from _writes(sight, bystander)


def _try(connection: Connection, tries: Sequence[tuple[Sight, str, TenantStatement]]) -> None:
    """Record the results of the tries with each sight; none where the login may not SET ROLE."""
    for (sight, name, _), done in zip(tries, attempt(connection, [one for _, _, one in tries]), strict=True):
        if done.entered:
            sight.seen[name] = done


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
    (allowed,) = attempt(connection, [TenantStatement("set local role authenticated")])
    return f"this login may not SET ROLE authenticated: {allowed.error}" if allowed.error else ""


def _seed(connection: Connection, mine: str, other: str, bystander: str) -> set[str]:
    """The tables that took a row of either company. The bystander gets no rows, so that an insert for it cannot hit
    another row's unique key.
    """
    rows = [(name, company) for name in SEEDS for company in (mine, other)]
    rows.insert(2, ("companies", bystander))
    done = attempt(connection, [TenantStatement(SEEDS[name], {"id": company}, keep=True) for name, company in rows])
    more = [
        TenantStatement(f"insert into public.{row}", {"id": company, "state": state}, keep=True)
        for row, states in OTHER_STATES.items()
        for state in states
        for company in (mine, other)
    ]
    attempt(connection, more)
    refused = {name for (name, company), one in zip(rows, done, strict=True) if one.error and company in {mine, other}}
    seeded = set(SEEDS) - refused
    return seeded | ({"audit_heads"} if "audit_logs" in seeded else set())


def _join(connection: Connection, sights: Sequence[Sight], mine: str, other: str) -> str:
    """Make a user a member of each tenant, where tokens name no tenant. Returns why that failed, or ''."""
    asked = [
        (company, TenantStatement(statement, values, keep=True))
        for company in {mine: 0, other: 0, **dict.fromkeys(sight.mine for sight in sights)}
        for statement, values in members.joining([company])
    ]
    done = attempt(connection, [one for _, one in asked])
    errors = {company: one.error for (company, _), one in zip(asked, done, strict=True) if one.error}
    for sight in sights:
        if sight.mine in errors:
            sight.mine, sight.other, sight.owner_mine, sight.owner_other = mine, other, 0, 0
    return f"this login may make no user a member of a tenant: {errors[mine]}" if mine in errors else ""


def _sights(
    connection: Connection, tables: Sequence[TenantTable], mine: str, other: str, seeded: Collection[str]
) -> list[Sight]:
    """Count as the login what is there of both tenants; tables we could not write to are judged by rows they have."""
    own = attempt(connection, [_count(table, mine) for table in tables])
    pairs = [
        (
            table,
            (mine, other)
            if table.name in seeded or count.rows or count.is_cut_short
            else _two_tenants(connection, table),
        )
        for table, count in zip(tables, own, strict=True)
    ]
    pairs = [(table, tenants) for table, tenants in pairs if tenants[0]]
    counts = attempt(connection, [_count(table, tenant) for table, tenants in pairs for tenant in tenants])
    return [
        Sight(table, *tenants, counts[2 * i].rows, counts[2 * i + 1].rows, counts[2 * i].error)
        for i, (table, tenants) in enumerate(pairs)
    ]


def _two_tenants(connection: Connection, table: TenantTable) -> tuple[str, str]:
    """Two tenants with rows in a table; the second is a random one without rows where there is only one."""
    query = f"select distinct tenant from (select {table.tenant} as tenant from {table.reference} limit %s) t"
    try:
        with connection.transaction():
            rows = execute(connection, f"{query} where tenant ~ '{OF_A_COMPANY}' order by 1 limit 2", MOST_ROWS)
    except psycopg.Error:
        if connection.closed:
            raise
        return "", ""
    found = [str(row["tenant"]) for row in rows]
    return (found[0], found[1] if len(found) > 1 else new_id("company")) if found else ("", "")


def _count(table: TenantTable, tenant: str, role: str | None = None, claims: str | None = None) -> TenantStatement:
    query = f"select from {table.reference} where {table.tenant} = %s limit 1000"
    return TenantStatement(query, (tenant,), role, claims)


def _reads(sight: Sight) -> Iterator[tuple[str, TenantStatement]]:
    """Read as the tenant: its own rows, and those of all others."""
    table = sight.table
    who = ("authenticated", _claims(sight.mine))
    others = f"select from {table.reference} where {table.tenant} is distinct from %s"
    of_tenants = f"{others} and {table.tenant} is not null limit 1000"
    yield "own", _count(table, sight.mine, *who)
    yield "foreign", TenantStatement(of_tenants, (sight.mine,), *who, every_row=True)
    everything = f"{others} limit 1000" if table.is_of_tenants else of_tenants
    yield "row_security_off", TenantStatement(everything, (sight.mine,), *who, exempt=True, every_row=True)


UNSET = (("no_claims", "authenticated", None), ("anon:unset", "anon", None))


def _claims_to_try(mine: str) -> Iterator[tuple[str, str, str]]:
    """Claims under which no row may be seen: the name of the attempt, the role, the text of the claims."""
    for role, name in (("authenticated", "stranger"), ("anon", "anon:stranger")):
        yield name, role, _claims(new_id("company"), role)
    yield "anon:company", "anon", _claims(mine, "anon")
    admin = {"role": "company_admin", "app_metadata": {"role": "company_admin"}, "company_id": new_id("company")}
    yield "stranger:company_admin", "authenticated", _said({**_user("company_admin"), **admin})
    # users can edit this themselves
    wished = {"company_id": mine, current().tenant_claim.rpartition(".")[2]: mine, "role": "super_admin"}
    for role, empty, without in (("authenticated", "empty_claims", "no_company"), ("anon", "anon:empty", "anon")):
        yield empty, role, ""
        yield f"{without}:object", role, _said({})
        by_subject = current().tenant_claim == "sub"
        subject = _user(role) | ({} if by_subject else {"sub": mine})  # a user's id makes nobody the company of that id
        yield f"{without}:subject", role, _said(subject)
        yield f"{without}:user_metadata", role, _said({**subject, "user_metadata": wished})
    for number, company in enumerate((None, "", "%", "' or ''='", "null", [mine], {"id": mine}, True)):
        yield f"garbage:{number}", "authenticated", _said({**_user("authenticated"), "company_id": company})
    for number, text in enumerate(("not json", "[]", "null", '"x"', "0", json.dumps([{"company_id": mine}]))):
        yield f"garbage:text-{number}", "authenticated", text


def _claimed(sight: Sight, tries: Iterable[tuple[str, str, str | None]]) -> Iterator[tuple[str, TenantStatement]]:
    """Ask for everything under claims that show nothing. Of the contract's tables strangers see no row at all."""
    for name, role, claims in tries:
        if role == "anon" and not has_strangers():
            continue
        is_all = sight.table.is_of_tenants or (role == "anon" and sight.table.promised)
        of_tenants = "" if is_all else f" where {sight.table.tenant} is not null"
        asked = f"select from {sight.table.reference}{of_tenants} limit 1000"
        yield name, TenantStatement(asked, (), role, claims, every_row=True)


def _writes(sight: Sight, bystander: str) -> Iterator[tuple[str, TenantStatement]]:
    """Try as the tenant, and as its administrator, to write rows of others."""
    for case, role in (("", "authenticated"), (":company_admin", "company_admin")):
        who = ("authenticated", _claims(sight.mine, role))
        for name, statement, values in _writings(sight, bystander):
            every_row = name in {"move", "update", "delete"}
            yield f"{name}{case}", TenantStatement(statement, values, *who, every_row=every_row)


def _writings(sight: Sight, bystander: str) -> Iterator[tuple[str, str, Sequence[object] | dict[str, object]]]:
    """The name of each attempt, the statement and its values."""
    table, other = sight.table, sight.other
    where = f"where {table.tenant} = %s"
    if table.name in SEEDS and table.promised:
        victim = new_id("company") if table.name == "companies" else bystander
        yield "insert", SEEDS[table.name], {"id": victim}
    column = table.tenant_column
    yield "move", f"update {table.reference} set {column} = %s {where}", (_moved(table, other), sight.mine)
    yield "update", f"update {table.reference} set {column} = {column} {where}", (other,)
    yield "delete", f"delete from {table.reference} {where}", (other,)
    if table.name in UPSERTS and table.promised:
        yield "upsert", f"{SEEDS[table.name]} on conflict {UPSERTS[table.name]}", {"id": other}


def _moved(table: TenantTable, other: str) -> str:
    return f"replay:{other}:192.0.2.9" if table.name == "edge_rate_limits" else other


def has_strangers() -> bool:
    """Whether the deployment has a role for strangers."""
    return current().roles.get("anon", "anon") is not None


def _claims(company: str, role: str = "authenticated") -> str:
    return _said({**_user(role), "company_id": company})


def _user(role: str) -> dict[str, object]:
    """The claims of each user's token, as Supabase sets them: `sub` is a UUID, since auth.uid() reads it as one."""
    user = str(uuid.uuid4())
    whole = {"aud": "authenticated", "email": f"{user}@example.invalid", "aal": "aal2", "is_anonymous": False}
    return {"sub": user, "role": role, "session_id": str(uuid.uuid4()), **whole}


def _said(claims: Mapping[str, object]) -> str:
    """The text of the claims setting, with the deployment's claim names."""
    return tenant_session(claims)[1]
