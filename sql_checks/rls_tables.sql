-- Tables with tenant data that a probe looks at, with the expression that gives a row's tenant as text.
with contract(name, tenant) as (
  values ('companies', 'id::text'), ('events', 'company_id::text'), ('feature_flags', 'company_id::text'),
         ('replay_budgets', 'company_id::text'), ('edge_rate_limits', 'split_part(key, '':'', 2)'),
         ('replay_runs', 'company_id::text'), ('audit_logs', 'scope'), ('audit_heads', 'scope'),
         ('event_outbox', 'company_id::text'), ('dead_letter_queue', 'company_id::text'), ('agent_tasks', 'company_id::text'),
         ('agent_controls', 'company_id::text')
)
select n.nspname::text as schema, c.relname::text as name, contract.name is not null as promised, c.relkind = 'v' as is_view,
       coalesce(contract.tenant, quote_ident(a.attname) || '::text') as tenant,
       coalesce(quote_ident(a.attname), case c.relname when 'companies' then 'id' when 'edge_rate_limits' then 'key' else 'scope' end)
         as tenant_column
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
left join contract on contract.name = c.relname and n.nspname = 'public'
left join pg_attribute a on a.attrelid = c.oid and a.attname in ('company_id', 'tenant_id') and not a.attisdropped
where c.relkind in ('r', 'p', 'v') and not c.relispartition
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and (n.nspname = 'public' or has_schema_privilege('authenticated', n.oid, 'USAGE'))
  and (contract.name is not null or a.attname is not null)
order by c.relkind = 'v', n.nspname, c.relname;
