-- Per table of the contract: is it there, may this login read it, is it under row-level security for this login, and if
-- so, is there a policy that shows it all rows and none that narrows them. estimate: live rows, as the statistics say.
with wanted (name) as (
  values ('public.companies'), ('public.events'), ('public.feature_flags'), ('public.replay_budgets'), ('public.edge_rate_limits'),
         ('public.replay_runs'), ('public.audit_logs'), ('public.audit_heads'), ('public.event_outbox'),
         ('public.dead_letter_queue'), ('public.agent_tasks'), ('public.agent_controls')
), found as (
  select w.name, c.oid, c.relowner, coalesce(s.n_live_tup, 0) as live, greatest(c.reltuples, 0)::bigint as estimated
  from wanted w
  left join pg_catalog.pg_class c on c.oid = to_regclass(w.name)
  left join pg_catalog.pg_stat_all_tables s on s.relid = c.oid
), mine as (
  select p.polrelid, p.polpermissive, pg_get_expr(p.polqual, p.polrelid) as qual
  from pg_catalog.pg_policy p
  where p.polcmd in ('r', '*')
    and exists (
      select from unnest(p.polroles) as r (oid)
      where r.oid = 0 or pg_has_role(current_user, r.oid, 'usage')
    )
)
select
  f.name, coalesce(f.name = 'public.companies', false) as is_companies,
  f.oid is not null as present,
  f.oid is not null and has_table_privilege(f.oid, 'select') as readable,
  f.oid is not null and row_security_active(f.oid) as secured,
  exists (select from mine m where m.polrelid = f.oid and m.polpermissive and m.qual in ('true', '(true)')) as open,
  exists (select from mine m where m.polrelid = f.oid and not m.polpermissive) as narrowed,
  greatest(f.live, f.estimated) as estimate
from found f
where f.name is not null
order by f.name;
