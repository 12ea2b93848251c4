-- Tables of the contract whose rows row security may hide from the current role: no policy is known to show it everything.
-- `schema` and `relation` are its real name; `estimate` is what the statistics know of, or a row for each page where there are none; the
-- caller compares it with what the role can count. `is_by_row`: the policies ask nothing but what is in a row.
with contract(name) as (
  values ('public.companies'), ('public.events'), ('public.feature_flags'), ('public.replay_budgets'), ('public.edge_rate_limits'),
         ('public.replay_runs'), ('public.audit_logs'), ('public.audit_heads'), ('public.event_outbox'),
         ('public.dead_letter_queue'), ('public.agent_tasks'), ('public.agent_controls')
), guarded as (
  select c.oid, contract.name as name, n.nspname::text as schema, c.relname::text as relation,
         greatest(
           c.reltuples::bigint, pg_stat_get_live_tuples(c.oid), case when c.reltuples < 0 then pg_relation_size(c.oid) / 8192 end,
           -- the rows of a partitioned table are counted where they are
           (select sum(greatest(p.reltuples::bigint, pg_stat_get_live_tuples(p.oid)))::bigint
            from pg_partition_tree(c.oid) t join pg_class p on p.oid = t.relid where t.isleaf)) as estimate
  from contract
  join pg_class c on c.oid = to_regclass(contract.name)
  join pg_namespace n on n.oid = c.relnamespace
  where row_security_active(c.oid)
), applying as (
  select p.polrelid, p.polpermissive, x.expression in ('true', '(true)') as shows_all,
         x.expression !~ '^\(*\w+ IS NOT NULL\)*$' and concat_ws(' ', x.expression, (
           select string_agg(coalesce(pg_get_function_sqlbody(f.oid), f.prosrc), ' ')
           from pg_depend d join pg_proc f on d.refclassid = 'pg_proc'::regclass and f.oid = d.refobjid
           where d.classid = 'pg_policy'::regclass and d.objid = p.oid)) !~* '_user\M|current_role|setting|jwt|auth|has_\w+\(|\mrole'
         and exists (select from pg_depend d where d.classid = 'pg_policy'::regclass and d.objid = p.oid
                     and d.refclassid = 'pg_class'::regclass and d.refobjid = p.polrelid and d.refobjsubid > 0) as is_by_row
  from pg_policy p
  cross join lateral (select coalesce(pg_get_expr(p.polqual, p.polrelid), 'true') as expression) x
  where p.polcmd in ('r', '*')
    and exists (select from unnest(p.polroles) r where r = 0 or pg_has_role(r, 'USAGE'))
)
select name, schema, relation, estimate,
       coalesce((select bool_and(a.is_by_row) from applying a where a.polrelid = g.oid and a.polpermissive), false) as is_by_row
from guarded g
where not exists (select from applying a where a.polrelid = g.oid and a.polpermissive and a.shows_all)
   or exists (select from applying a where a.polrelid = g.oid and not a.polpermissive and not a.shows_all)
order by name;
