-- Tables and views of the deployment, the contract's names first, with their columns; a column of a domain has its base type.
-- Partitions, system schemas, and what an extension owns are left out. %(names)s: names of the contract; %(most)s: how many
-- relations to read at most.
with chosen as (
  select c.oid, n.oid as place, n.nspname, c.relname, c.relkind, c.relrowsecurity, c.relforcerowsecurity, c.relowner, c.reloptions, c.relacl
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
    and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'
    and not exists (
      select from pg_catalog.pg_depend d
      where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
    )
  order by c.relname = any(%(names)s) desc, n.nspname = 'public' desc, c.oid
  limit %(most)s
), parts as (
  select a.attrelid,
         json_agg(json_build_array(
           a.attname, format_type(case t.typtype when 'd' then t.typbasetype else t.oid end, null), a.attnotnull,
           a.atthasdef or a.attidentity <> '', substr(d.description, 1, 120)
         ) order by a.attnum) as columns
  from pg_catalog.pg_attribute a
  join pg_catalog.pg_type t on t.oid = a.atttypid
  left join pg_catalog.pg_description d
    on d.objoid = a.attrelid and d.objsubid = a.attnum and d.classoid = 'pg_catalog.pg_class'::regclass
  where a.attrelid in (select oid from chosen) and a.attnum between 1 and 300 and not a.attisdropped
  group by a.attrelid
)
select c.oid::bigint as oid, c.nspname as schema, c.relname as name, c.relkind::text as kind,
       c.relrowsecurity as secured, c.relforcerowsecurity as forced,
       pg_catalog.has_schema_privilege(c.place, 'usage') and pg_catalog.has_table_privilege(c.oid, 'select') as readable,
       pg_catalog.row_security_active(c.oid) as narrowed,
       substr(d.description, 1, 200) as comment,
       array(
         select distinct pg_catalog.pg_get_userbyid(a.grantee)::text from pg_catalog.aclexplode(c.relacl) a
         where a.grantee not in (0, c.relowner) limit 100
       ) as grantees,
       array(
         select distinct case a.grantee when 0 then 'public' else pg_catalog.pg_get_userbyid(a.grantee)::text end
         from pg_catalog.aclexplode(c.relacl) a where a.privilege_type = 'TRUNCATE' and a.grantee <> c.relowner limit 100
       ) as truncators,
       coalesce(p.columns, '[]') as columns
from chosen c
left join parts p on p.attrelid = c.oid
left join pg_catalog.pg_description d on d.objoid = c.oid and d.objsubid = 0 and d.classoid = 'pg_catalog.pg_class'::regclass
order by c.nspname, c.relname;
