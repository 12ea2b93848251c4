-- Functions and procedures that tenants may call, SECURITY DEFINER or such as set what a policy asks: each with its text, the types
-- of its arguments (`row:` before a type with columns), how many of these may be left out; `unsafe_owner`: whose code a call would
-- run with the rights of the gate, or ''; and whether it may change rows, by what it declares and by its text. Left out: what runs
-- as its caller and has an untrusted owner, what truncates, locks a table, runs text as SQL, or calls what may act outside of the
-- transaction.
select quote_ident(n.nspname) || '.' || quote_ident(p.proname) as name, p.oid::regprocedure::text as shown,
       code.body, call.defaults, call.unsafe_owner, p.prokind = 'p' as is_procedure, p.provariadic <> 0 as is_variadic,
       not c.is_for_tenants as is_for_strangers, p.provolatile = 'v' and code.body ~* '\m(insert|update|delete|merge)\M' as writes,
       (select coalesce(array_agg(case when t.oid = 'bpchar'::regtype then 'bpchar'
                                       when t.typtype <> 'p' then case t.typtype when 'c' then 'row:' else '' end
                                                                  || format_type(coalesce(nullif(t.typbasetype, 0), t.oid), null)
                                       when t.typname ~ 'array$' then 'uuid[]' else 'uuid' end order by given.place), '{}')
        from unnest(p.proargtypes::oid[]) with ordinality given(type, place) join pg_type t on t.oid = given.type) as types
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
join pg_language l on l.oid = p.prolang
cross join lateral (
  select p.proowner as relowner,
         bool_or(r.rolname = 'authenticated') as is_for_tenants, count(*) > 0 as is_for_somebody
  from pg_roles r
  where r.rolname in ('authenticated', 'anon') and has_schema_privilege(r.oid, n.oid, 'USAGE')
    and has_function_privilege(r.oid, p.oid, 'EXECUTE')) c
cross join lateral (select coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) as body) code
cross join lateral (select {{trusted_owner}} as is_trusted) owner
-- what runs with its owner's rights alone, from its arguments to its answer, gains nothing by being called: no default is
-- computed where all is given, and a type of ours runs code of ours
cross join lateral (
  select case when owner.is_trusted then p.pronargdefaults else 0 end as defaults,
         case when not owner.is_trusted and exists (
                select from pg_type t cross join lateral (select t.typowner as relowner) c
                where t.typnamespace <> 'pg_catalog'::regnamespace
                  and t.oid = any(coalesce(p.proallargtypes, p.proargtypes::oid[]) || p.prorettype)
                  and not {{trusted_owner}}) then pg_get_userbyid(p.proowner)::text else '' end as unsafe_owner) call
where p.prokind in ('f', 'p') and l.lanname in ('sql', 'plpgsql')
  and (p.prosecdef or code.body ~* '\mset_config\s*\(|\mset\s+(local\s+)?\w+\.'
    or exists (select from unnest(p.proconfig) set_to(text) where text ~ '^\w+\.'))
  and (p.provolatile <> 'v' or code.body !~* '\m(truncate|execute|call|copy|lock|notify|listen)\M')
  -- whatever it declares: one that ends sessions or sends requests would do so here, too
  and not exists (select from regexp_matches(code.body, '(\w+)"?\s*\(', 'g') used(words)
                  join pg_proc f on f.proname = lower(words[1]) and f.provolatile = 'v'
                    and f.proname not in ('set_config', 'clock_timestamp', 'random', 'gen_random_uuid', 'pg_notify', 'nextval'))
  and p.prorettype not in ('trigger'::regtype, 'event_trigger'::regtype)
  and c.is_for_somebody
  and not exists (select from pg_type t where t.oid = any(p.proargtypes::oid[]) and t.typtype = 'p'
                  and t.typname !~ '^any(compatible|element|nonarray|array|compatiblenonarray|compatiblearray)$')
  and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e')
  and (owner.is_trusted or p.prosecdef and (call.unsafe_owner = '' or exists (
        -- it may know something
        select from unnest(array[to_regclass('public.dead_letter_queue'), to_regclass('public.event_outbox'), to_regclass('public.events'),
                                 to_regclass('public.replay_runs'), to_regclass('public.agent_tasks')]) known(oid)
        where has_any_column_privilege(p.proowner, known.oid, 'SELECT'))))
order by 2;
