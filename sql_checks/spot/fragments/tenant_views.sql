readers as (
  select distinct r.ev_class as oid
  from pg_depend d join pg_rewrite r on r.oid = d.objid
  where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
    and d.refobjid in (select oid from tenant_tables)
  union
  select r.ev_class
  from readers
  join pg_depend d on d.refobjid = readers.oid and d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
  join pg_rewrite r on r.oid = d.objid
), tenant_views as (
  -- views that read tables with tenant data, directly or through others
  select c.oid, c.oid::regclass::text as name, array_to_string(c.reloptions, ', ') as options,
         n.nspname = any('{public}') as is_public,
         coalesce((select option_value::boolean from pg_options_to_table(c.reloptions)
                   where option_name = 'security_invoker'), false) as is_invoker,
         c.oid in (to_regclass('public.feature_flags_status'), to_regclass('public.replay_budgets_status'))
         or exists (select from pg_roles r
                    where r.rolname in ('anon', 'authenticated') and has_schema_privilege(r.oid, n.oid, 'USAGE')
                      and (has_table_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE')
                        or has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE'))) as is_reachable
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  where c.relkind = 'v' and c.oid in (select oid from readers)
)
