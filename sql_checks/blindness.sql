-- Tables of the contract whose rows row security may hide from the current role: no policy is known to show it everything.
-- `schema` and `relation` are its real name; `estimate` is what the statistics know of; the caller compares it with what the role can count.
with contract(name) as (
  values ('public.companies'), ('public.events'), ('public.feature_flags'), ('public.replay_budgets'), ('public.edge_rate_limits'),
         ('public.replay_runs'), ('public.audit_logs'), ('public.audit_heads'), ('public.event_outbox'),
         ('public.dead_letter_queue'), ('public.agent_tasks'), ('public.agent_controls')
), guarded as (
  select c.oid, contract.name as name, n.nspname::text as schema, c.relname::text as relation,
         greatest(
           c.reltuples::bigint, pg_stat_get_live_tuples(c.oid),
           -- the rows of a partitioned table are counted where they are
           (select sum(greatest(p.reltuples::bigint, pg_stat_get_live_tuples(p.oid)))::bigint
            from pg_partition_tree(c.oid) t join pg_class p on p.oid = t.relid where t.isleaf)) as estimate
  from contract
  join pg_class c on c.oid = to_regclass(contract.name)
  join pg_namespace n on n.oid = c.relnamespace
  where row_security_active(c.oid)
), applying as (
  select p.polrelid, p.polpermissive,
         coalesce(pg_get_expr(p.polqual, p.polrelid), 'true') in ('true', '(true)') as shows_all
  from pg_policy p
  where p.polcmd in ('r', '*')
    and exists (select from unnest(p.polroles) r where r = 0 or pg_has_role(r, 'USAGE'))
)
select name, schema, relation, estimate
from guarded g
where not exists (select from applying a where a.polrelid = g.oid and a.polpermissive and a.shows_all)
   or exists (select from applying a where a.polrelid = g.oid and not a.polpermissive and not a.shows_all)
order by name;
