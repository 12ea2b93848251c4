-- id: sql/spot/definer-search-path
-- claim: Every SECURITY DEFINER function that tenants can call pins its search_path, or has its names bound when it was made.
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
  and (n.nspname = any('{public}') or p.proowner in (
        select c.relowner from pg_class c where c.oid in (to_regclass('public.replay_runs'), to_regclass('public.audit_logs'))))
  and not exists (select from unnest(p.proconfig) c where c like 'search\_path=%')
  and p.prosqlbody is null
  -- what nobody calls, nobody deceives: triggers, and what tenants may not execute (those are 0036's)
  and p.prorettype <> 'trigger'::regtype and p.prorettype <> 'event_trigger'::regtype
  and exists (select from pg_roles r where r.rolname in ('anon', 'authenticated') and not r.rolsuper
                and has_schema_privilege(r.oid, n.oid, 'USAGE') and has_function_privilege(r.oid, p.oid, 'EXECUTE'))
  and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e');

-- seen:
select count(*) as seen from pg_proc p where p.pronamespace in (select oid from pg_namespace where nspname = any('{public}'));
