"""The state of a deployment: the flags and pauses of everybody and of the test company, and rows left in its tables.

What a tenant has of its own is for its people to change while we look: no gate writes there.
"""

import json
from collections import Counter
from collections.abc import Sequence

from gates.deployment.dialect.current import current
from gates.deployment.sql.catalogue import array, identifier, with_fragments
from gates.deployment.sql.connection import Answering
from gates.deployment.sql.database import Connection, execute
from gates.deployment.tenants.tenants import OWNED_TABLES

FLAGS = """
select f.key, f.company_id::text as company, f.enabled, f.rollout_percentage, f.description
from public.feature_flags f
where (f.company_id is null or f.company_id::text = lower(%s))
  -- other keys belong to other software, whose people step them while we look
  and f.key in ('outbox.enabled', 'dlq.replay.enabled', 'dlq.replay.budget_control', 'security.signing_v2_required')
order by f.key, f.company_id nulls first
"""

PAUSES = """
select a.company_id::text as company, a.agents_paused, left(a.pause_reason, 500) as pause_reason
from public.agent_controls a
where a.company_id is null or a.company_id::text = lower(%s)
order by a.company_id nulls first
"""

TENANT_COLUMNS = """
select n.nspname::text as schema, c.relname::text as "table", a.attname::text as "column", f.fits,
  has_table_privilege(c.oid, 'select') and (
    coalesce(c.relkind = 'r' and pg_relation_size(c.oid) < 50000000, false) or f.fits and exists (
      select from pg_index i where i.indrelid = c.oid and i.indkey[0] = a.attnum and i.indisvalid and i.indpred is null)
  ) as soon
from pg_attribute a
join pg_type t on t.oid = a.atttypid
cross join lateral (
  select coalesce(nullif(t.typbasetype, 0), t.oid) in (
    'text'::regtype, 'varchar'::regtype, (
      select k.atttypid from pg_attribute k
      where k.attrelid = to_regclass('public.companies') and k.attname = (parse_ident('public.companies.id'))[3])
  ) is true as fits
) f
join pg_class c on c.oid = a.attrelid
join pg_namespace n on n.oid = c.relnamespace
where a.attname = any('{company_id,tenant_id}') and a.attnum > 0 and not a.attisdropped
  and c.relkind in ('r', 'p') and not c.relispartition and {{trusted_owner}}
  and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg_t%'
order by 1, 2, 3
"""
"""Every table with a tenant column whose owner may run code as us. The audit trail's is `scope`: its rows stay.

fits: the column is of the type of tenants' ids, or text. soon: its rows may be read, and are
found without reading a large table.
"""


def kept_by_contract() -> set[str]:
    """The tables that a gate knows and has to clean. What a deployment keeps in tables of its own is its own affair."""
    return {current().real(t) for t in (*OWNED_TABLES, "companies", "edge_rate_limits")} - {""}


def state_of(connection: Connection, test_company: str) -> dict[str, list[str]]:
    """Flags and pauses as lines of JSON, so that two states can be compared and kept."""
    return {
        what: [json.dumps(r, sort_keys=True, default=str) for r in execute(connection, statement, test_company)]
        for what, statement in (("flags", FLAGS), ("pauses", PAUSES))
    }


def rows_left(connection: Answering, companies: Sequence[str]) -> tuple[int, dict[str, int]]:
    """The number of tables looked through, and how many rows of these companies each still has, where it has any.

    Of the deployment's own tables only those that we may read and in which rows are found soon.
    """
    known = kept_by_contract()
    named = [(f"{row['schema']}.{row['table']}", row) for row in execute(connection, with_fragments(TENANT_COLUMNS))]
    tables = [(name, row) for name, row in named if row["soon"] or name in known]
    keys = [f"replay:{c}:" for c in companies]
    with connection.at_once():
        counted = [
            (
                name,
                connection.execute(
                    f"select count(*) as n from {identifier(str(row['schema']), str(row['table']))} where"
                    f" {identifier(str(row['column']))}{'' if row['fits'] else '::text'} = any(%s)".encode(),
                    (array(companies) if row["fits"] else list(companies),),
                ),
            )
            for name, row in tables
        ]
        own = "select count(*) as n from public.companies where id = any(%s)"
        counted.append((current().real("companies"), connection.execute(own, (array(companies),))))
        limits = (
            "select count(*) as n from public.edge_rate_limits where exists (select from unnest(%s::text[]) k"
            " where starts_with(key, k))"
        )
        counted.append((current().real("edge_rate_limits"), connection.execute(limits, (keys,))))
    left: Counter[str] = Counter()
    for table, cursor in counted:
        left[table] += int(str((cursor.fetchone() or {"n": 0})["n"]))
    return len(counted), dict(+left)
