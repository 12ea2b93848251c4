-- id: sql/spot/definer-not-public
-- claim: No SECURITY DEFINER function but is_feature_enabled is for everybody, and none gives rows to anon. Those that tenants call, and rules of views that they write to, ask who calls before they give or write rows of tenants, or run a statement made of what they are given, and believe nothing that users write into their own token. None belongs to a superuser, and each pins its search_path.
-- cost: Anybody who can connect acts with the owner's rights.
-- severity: warn
-- reads: catalogue
-- covers: J17
select p.oid::regprocedure::text as subject, 'EXECUTE is granted to PUBLIC or to anon' as detail, p.proacl::text as witness
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
where p.prosecdef and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  -- of others' functions (extensions, the platform's schemas) we know nothing
  and (n.nspname = any('{public}') or p.proowner in (
        select c.relowner from pg_class c where c.oid in (to_regclass('public.replay_runs'), to_regclass('public.audit_logs'))))
  -- the contract lets every caller ask for a flag; a trigger function cannot be called
  and format('%I.%I', n.nspname, p.proname) <> 'public.is_feature_enabled' and p.prorettype <> 'trigger'::regtype and p.prorettype <> 'event_trigger'::regtype
  and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
              where a.grantee = 0 or p.proretset and a.grantee = (select oid from pg_roles where rolname = 'anon'))
  and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e')
union all
select p.oid::regprocedure::text, format('belongs to the superuser %s', r.rolname), null
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
join pg_roles r on r.oid = p.proowner
where p.prosecdef and r.rolsuper and n.nspname = any('{public}')
  and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e')
union all
select p.oid::regprocedure::text, 'no pinned search_path', array_to_string(p.proconfig, ', ')
from pg_proc p
where p.prosecdef and p.pronamespace in (select oid from pg_namespace where nspname = any('{public}')) and p.prosqlbody is null
  and not exists (select from unnest(p.proconfig) c where c like 'search\_path=%')
  and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e')
union all
-- a function that reads the caller's claims, itself or through another, counts as checking them
select name, 'authenticated or anon may call it, and it gives or writes rows, or runs what it is given, for whoever calls', null
from (
  with recursive {{contract_tables}}, functions as not materialized (
    select p.oid, p.proname, p.pronamespace, d.body,
           -- a comment asks nobody
           regexp_replace(regexp_replace(d.body, '/\*.*?\*/', ' ', 'g'), '--[^\n]*', '', 'g') as code
    from pg_proc p
    cross join lateral (select case when p.prokind in ('f', 'p') then pg_get_functiondef(p.oid) end) d (body)
  ), callable as materialized (
    select p.oid, p.oid::regprocedure::text as name, f.nspname = any('{public}') as is_near, p.proconfig,
           f.nspname = any('{public}') or p.proowner in (
             select c.relowner from pg_class c where c.oid in (to_regclass('public.replay_runs'), to_regclass('public.audit_logs'))) as is_ours,
           -- a number or a yes is no row
           p.proretset or t.typtype in ('c', 'p') and t.typname not in ('void', 'trigger', 'event_trigger') or t.typcategory in ('A', 'S')
             or t.oid = any('{json,jsonb,xml,bytea}'::regtype[]) as gives_rows,
           l.lanname = 'plpgsql' and p.pronargs > 0 as is_told,
           b.body, b.code
    from pg_proc p
    join functions b on b.oid = p.oid
    -- a domain is what it is made of
    cross join lateral (
      with recursive made_of as (select p.prorettype as oid union select typbasetype from made_of join pg_type using (oid) where typtype = 'd')
      select type.* from made_of join pg_type type using (oid) where typtype <> 'd') t
    join pg_language l on l.oid = p.prolang
    join pg_namespace f on f.oid = p.pronamespace and f.nspname !~ '^pg_' and f.nspname <> 'information_schema'
    where p.prosecdef and p.prokind in ('f', 'p')
      and exists (select from pg_roles r where r.rolname in ('authenticated', 'anon') and case
                  -- a row that is written to a view, no policy has seen before its trigger has it; nor what an update makes of the old one
                  when t.oid = 'trigger'::regtype then exists (
                    select from pg_trigger g where g.tgfoid = p.oid and (
                      g.tgtype::int & 68 = 68 and has_any_column_privilege(r.oid, g.tgrelid, 'insert')
                      or g.tgtype::int & 80 = 80 and has_any_column_privilege(r.oid, g.tgrelid, 'update') and b.code !~* '\mold\.'))
                  else has_function_privilege(r.oid, p.oid, 'execute') and has_schema_privilege(r.oid, f.oid, 'usage') end)
      and not exists (select from pg_depend e where e.objid = p.oid and e.classid = 'pg_proc'::regclass and e.deptype = 'e')
  ), open as materialized (
    select p.oid, p.name, p.code
    from callable p
    -- what a text says is not run
    where p.is_ours and p.is_told
      and regexp_replace(p.code, '''[^'']*''', '''''', 'g') ~* '\mexecute\s+(?!(function|procedure)\M)' or exists (
      select
      from contract
      join pg_class c on c.oid = to_regclass(contract.name)
      join pg_namespace n on n.oid = c.relnamespace
      -- the tables of another schema may have the same names: elsewhere a table counts by its schema's name, too, or where
      -- the caller's path finds it
      cross join lateral (
        select p.is_near or exists (select from unnest(p.proconfig) s where s ~ ('^search_path=.*\m' || n.nspname || '\M')) as is_found,
               not exists (select from unnest(p.proconfig) s where s like 'search\_path=%') as is_asked) path
      cross join lateral (
        select case when not path.is_found and path.is_asked then '(from|join)\s+' else '' end as first,
               case when path.is_found then '(\S+\.)?' else '(' || n.nspname || '"?\.)' || case when path.is_asked then '?' else '' end end
               || '"?' || regexp_replace(c.relname, '\W', '.', 'g') || '\M' as word) w
      where contract.tenant is not null and (
        -- who the companies are may stand in a directory
        p.gives_rows and contract.name <> 'public.companies' and p.body ~ ('\m' || w.first || w.word)
        or p.body ~* ('\m(insert\s+into|update|delete\s+from|merge\s+into|truncate)\s+((table|only)\s+)*"?' || w.word)))
  ), reached as (
    select oid as caller, oid, code, 0 as calls from open
    union
    select r.caller, f.oid, f.code, r.calls + 1
    from reached r
    join functions f on r.calls < 3 and strpos(r.code, f.proname) > 0
      and f.pronamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
      and r.code ~ ('\m' || regexp_replace(f.proname, '\W', '.', 'g') || '\M')
  )
  select o.name from open o
  join reached r on r.caller = o.oid
  group by o.name
  having not bool_or(r.code ~* '\m(jwt|auth\.|request\.|current_setting|session_user)')
    or bool_or(r.code ~* 'user_?metadata|user_meta_data')
) believed
union all
-- what a rule of a view writes, it writes with the rights of the view's owner; old rows are those that who asks may see
select distinct format('%s rule %s', v.oid::regclass, r.rulename), format('%s writes what it is given for whoever asks', who.rolname), d.text
from pg_rewrite r
join pg_class v on v.oid = r.ev_class and v.relkind = 'v'
join pg_roles who on who.rolname in ('authenticated', 'anon') and not who.rolsuper
  and case r.ev_type when '2' then has_any_column_privilege(who.oid, v.oid, 'UPDATE') when '3' then has_any_column_privilege(who.oid, v.oid, 'INSERT')
                     when '4' then has_table_privilege(who.oid, v.oid, 'DELETE') end
cross join lateral (select pg_get_ruledef(r.oid) as text) d
where d.text ~* 'DO\M.*\m(insert\s+into|update|delete\s+from)\M' and (r.ev_type = '3' or d.text !~* '\mold\.')
  and d.text !~* '\m(jwt|auth\.|request\.|current_setting|session_user)' and exists (
    select from pg_depend u
    join pg_class c on u.refclassid = 'pg_class'::regclass and c.oid = u.refobjid
    where u.classid = 'pg_rewrite'::regclass and u.objid = r.oid and c.relrowsecurity);

-- seen:
select count(*) as seen from pg_proc p where p.pronamespace in (select oid from pg_namespace where nspname = any('{public}'));
