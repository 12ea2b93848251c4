-- id: sql/spot/definer-search-path
-- claim: Every SECURITY DEFINER function pins its search_path.
-- cost: A caller puts an own object in front and runs it with the owner's rights.
-- severity: page
-- reads: catalogue
-- covers: J17
select p.oid::regprocedure::text as subject,
       'SECURITY DEFINER without a pinned search_path' as detail,
       array_to_string(p.proconfig, ', ') as witness
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
where p.prosecdef and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  -- of others' functions (extensions, the platform's schemas) we know nothing
  and (n.nspname = 'public' or p.proowner in (
        select c.relowner from pg_class c where c.oid in (to_regclass('public.replay_runs'), to_regclass('public.audit_logs'))))
  and not exists (select from unnest(p.proconfig) c where c like 'search\_path=%')
  and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e');

-- seen:
select count(*) as seen from pg_proc p where p.pronamespace = 'public'::regnamespace;
