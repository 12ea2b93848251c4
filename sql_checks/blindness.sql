-- Tables of the contract whose rows row security may hide from the current role: no policy is known to show it everything.
-- `estimate` is what the statistics know of; the caller compares it with what the role can count.
with contract(name) as (
  values ('companies'), ('events'), ('feature_flags'), ('replay_budgets'), ('edge_rate_limits'), ('replay_runs'),
         ('audit_logs'), ('audit_heads'), ('event_outbox'), ('dead_letter_queue'), ('agent_tasks'), ('agent_controls')
), guarded as (
  select c.oid, c.relname::text as name,
         greatest(c.reltuples::bigint, coalesce(pg_stat_get_live_tuples(c.oid), 0)) as estimate
  from contract
  join pg_class c on c.relname = contract.name and c.relnamespace = to_regnamespace('public')
  where row_security_active(c.oid)
), applying as (
  select p.polrelid, p.polpermissive,
         coalesce(pg_get_expr(p.polqual, p.polrelid), 'true') in ('true', '(true)') as shows_all
  from pg_policy p
  where p.polcmd in ('r', '*')
    and exists (select from unnest(p.polroles) r where r = 0 or pg_has_role(r, 'USAGE'))
)
select name, estimate
from guarded g
where not exists (select from applying a where a.polrelid = g.oid and a.polpermissive and a.shows_all)
   or exists (select from applying a where a.polrelid = g.oid and not a.polpermissive and not a.shows_all)
order by name;
