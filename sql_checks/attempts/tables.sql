-- Tables with tenant data that a probe looks at, with the expression that gives a row's tenant as text. What the contract
-- names has the contract's name and columns; `shown` is the real name. Of an owner whose code must not run with the gate's rights
-- (`untrusted_owner`) only what tenants may reach is listed.
with contract(relation, name, tenant, tenant_column) as (
  values ('companies', 'public.companies', 'id::text', 'id'), ('events', 'public.events', 'company_id::text', 'company_id'),
         ('feature_flags', 'public.feature_flags', 'company_id::text', 'company_id'),
         ('replay_budgets', 'public.replay_budgets', 'company_id::text', 'company_id'),
         ('edge_rate_limits', 'public.edge_rate_limits', 'split_part(key, '':'', 2)', 'key'),
         ('replay_runs', 'public.replay_runs', 'company_id::text', 'company_id'),
         ('audit_logs', 'public.audit_logs', 'scope', 'scope'), ('audit_heads', 'public.audit_heads', 'scope', 'scope'),
         ('event_outbox', 'public.event_outbox', 'company_id::text', 'company_id'),
         ('dead_letter_queue', 'public.dead_letter_queue', 'company_id::text', 'company_id'),
         ('agent_tasks', 'public.agent_tasks', 'company_id::text', 'company_id'),
         ('agent_controls', 'public.agent_controls', 'company_id::text', 'company_id'),
         ('feature_flags_status', 'public.feature_flags_status', 'company_id::text', 'company_id'),
         ('replay_budgets_status', 'public.replay_budgets_status', 'company_id::text', 'company_id')
)
select n.nspname::text as schema, coalesce(contract.relation, c.relname::text) as name,
       format('%I.%I', n.nspname, c.relname) as shown, contract.relation is not null as is_contract,
       contract.relation is not null and c.relkind <> 'v' as promised, c.relkind = 'v' as is_view,
       coalesce(contract.tenant, quote_ident(a.attname) || '::text') as tenant,
       coalesce(contract.tenant_column, quote_ident(a.attname)) as tenant_column,
       -- to strangers: by what every role holds, or a role of that name, which is theirs whatever gate.yaml says
       has_any_column_privilege('public', c.oid, 'SELECT')
         or exists (select from pg_roles r where r.rolname ~ '^anon$' and has_any_column_privilege(r.oid, c.oid, 'SELECT')) as is_open,
       case when owner.is_trusted then '' else pg_get_userbyid(c.relowner)::text end as untrusted_owner
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
cross join lateral (select {{trusted_owner}} as is_trusted) owner
left join contract on c.oid = to_regclass(contract.name)
left join pg_attribute a on a.attrelid = c.oid and a.attname = any('{company_id,tenant_id}') and not a.attisdropped
where c.relkind in ('r', 'p', 'v')
  -- a partition that tenants reach by its own name has its own policies
  and (not c.relispartition or has_any_column_privilege('authenticated', c.oid, 'SELECT, INSERT, UPDATE')
    or has_table_privilege('authenticated', c.oid, 'DELETE'))
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and (n.nspname = any('{public}') or has_schema_privilege('authenticated', n.oid, 'USAGE'))
  and (contract.relation is not null or a.attname is not null)
  and (owner.is_trusted or exists (
        select from pg_roles r
        where r.rolname in ('anon', 'authenticated') and has_schema_privilege(r.oid, n.oid, 'USAGE')
          and (has_table_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE')
            or has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE'))))
order by c.relkind = 'v', n.nspname, c.relname;
