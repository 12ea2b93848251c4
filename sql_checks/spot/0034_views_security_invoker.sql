-- id: sql/spot/views-security-invoker
-- claim: Every view over tenant data runs with its caller's rights.
-- cost: The view shows all tenants to whoever may read it.
-- severity: page
-- reads: catalogue
-- covers: J15
with recursive {{tenant_tables}}, readers as (
  select distinct r.ev_class as oid
  from pg_depend d join pg_rewrite r on r.oid = d.objid
  where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
    and d.refobjid in (select oid from tenant_tables)
  union
  select r.ev_class
  from readers
  join pg_depend d on d.refobjid = readers.oid and d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
  join pg_rewrite r on r.oid = d.objid
)
select c.oid::regclass::text as subject,
       'the view is not security_invoker' as detail,
       array_to_string(c.reloptions, ', ') as witness
from pg_class c
where c.relkind = 'v' and c.oid in (select oid from readers)
  and not coalesce((select option_value::boolean from pg_options_to_table(c.reloptions) where option_name = 'security_invoker'), false);

-- seen:
select count(*) as seen from pg_class where relkind = 'v' and relnamespace = 'public'::regnamespace;
