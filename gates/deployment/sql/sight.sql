-- Per table of the contract: is it there, may this login read it, and does it see every row: row-level security does not
-- bind the login, or a policy shows it all rows and none narrows them. A view that asks with the rights of whoever reads it
-- has the policies of other tables behind it. is_table: a view may leave rows out by itself. Only what is asked for is looked at:
-- a look waits for whoever has the table locked. The one parameter: all tables, or else those of the flags and their companies.
with wanted (name) as (
  values ('public.companies'), ('public.events'), ('public.feature_flags'), ('public.replay_budgets'), ('public.edge_rate_limits'),
         ('public.replay_runs'), ('public.audit_logs'), ('public.audit_heads'), ('public.event_outbox'),
         ('public.dead_letter_queue'), ('public.agent_tasks'), ('public.agent_controls')
), found as (
  select w.name, to_regclass(w.name) as oid from wanted w
  where %s or w.name in ('public.companies', 'public.feature_flags')
), mine as (
  select p.polrelid, p.polpermissive, pg_get_expr(p.polqual, p.polrelid) as qual
  from found f join pg_catalog.pg_policy p on p.polrelid = f.oid
  where p.polcmd in ('r', '*')
    and exists (
      select from unnest(p.polroles) as r (oid)
      where r.oid = 0 or pg_has_role(current_user, r.oid, 'usage')
    )
)
select
  f.name,
  f.name is not distinct from 'public.feature_flags' as is_flags,
  f.name is not distinct from 'public.companies' as is_companies,
  f.oid is not null as present,
  f.oid is not null and has_table_privilege(f.oid, 'select') as readable,
  exists (select from pg_catalog.pg_class c where c.oid = f.oid and c.relkind in ('r', 'p')) as is_table,
  f.oid is not null and not exists (
    select from pg_catalog.pg_class c
    join pg_catalog.pg_roles me on me.rolname = current_user and not (me.rolsuper or me.rolbypassrls)
    where c.oid = f.oid and c.relkind = 'v'
      and exists (select from unnest(c.reloptions) as o (said)
                  where case when o.said like 'security_invoker=%%' then split_part(o.said, '=', 2)::boolean end)
  ) and (
    not row_security_active(f.oid)
    or exists (select from mine m where m.polrelid = f.oid and m.polpermissive and m.qual in ('true', '(true)'))
       and not exists (select from mine m where m.polrelid = f.oid and not m.polpermissive)
  ) as whole
from found f
where f.name is not null
order by f.name;
