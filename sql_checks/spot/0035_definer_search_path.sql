-- id: sql/spot/definer-search-path
-- claim: Every SECURITY DEFINER function that tenants can call pins its search_path, or has its names bound when it was made, and no such function looks for names where tenants make something.
-- cost: A caller shadows a name with an object of its own, which then runs with the owner's rights.
-- severity: page
-- reads: catalogue
-- covers: J17
select p.oid::regprocedure::text as subject,
       case when path.open is not null then format('SECURITY DEFINER, and tenants may create in %s, which its search_path names', path.open)
            when path.is_temporary_first then 'SECURITY DEFINER, and its search_path names pg_temp before other schemas'
            else 'SECURITY DEFINER without a pinned search_path' end as detail,
       array_to_string(p.proconfig, ', ') as witness
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
cross join lateral (
  select count(c.setting) > 0 as is_pinned,
         -- last, it is looked in for what is nowhere else
         coalesce(bool_or(s.name = 'pg_temp' and s.number < s.names), false) as is_temporary_first,
         -- that everybody may create in public is an older server's default
         string_agg(s.name, ', ' order by s.number) filter (where s.name <> 'public' and exists (
           select from pg_namespace o, pg_roles r
           where o.nspname = s.name and r.rolname in ('anon', 'authenticated') and not r.rolsuper
             and has_schema_privilege(r.oid, o.oid, 'CREATE'))) as open
  from unnest(p.proconfig) c(setting)
  cross join lateral (
    select btrim(part, ' "') as name, number, count(*) over () as names
    from regexp_split_to_table(substr(c.setting, 13), ',') with ordinality parts(part, number)) s
  where c.setting like 'search\_path=%'
) path
where p.prosecdef and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  -- of others' functions (extensions, the platform's schemas) we know nothing
  and (n.nspname = any('{public}') or p.proowner in (
        select c.relowner from pg_class c where c.oid in (to_regclass('public.replay_runs'), to_regclass('public.audit_logs'))))
  and (not path.is_pinned or path.is_temporary_first or path.open is not null)
  and p.prosqlbody is null
  -- what nobody calls, nobody deceives: triggers, and what tenants may not execute (those are 0036's)
  and p.prorettype <> 'trigger'::regtype and p.prorettype <> 'event_trigger'::regtype
  and (path.open is not null or exists (
    select from pg_roles r where r.rolname in ('anon', 'authenticated') and not r.rolsuper
      and has_schema_privilege(r.oid, n.oid, 'USAGE') and has_function_privilege(r.oid, p.oid, 'EXECUTE')))
  and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e');

-- seen:
select count(*) as seen from pg_proc p where p.pronamespace in (select oid from pg_namespace where nspname = any('{public}'));
