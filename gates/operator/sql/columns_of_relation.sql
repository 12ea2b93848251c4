-- The columns of a relation, by its real name: type, and the labels where that is an enumeration. %(schema)s %(name)s
select a.attname::text as name, coalesce(nullif(t.typbasetype, 0::oid), t.oid)::regtype::text as type,
       t.typcategory::text as category,
       (select array_agg(e.enumlabel::text) from pg_catalog.pg_enum e where e.enumtypid = t.oid) as labels
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
join pg_catalog.pg_type t on t.oid = a.atttypid
where n.nspname = %(schema)s and c.relname = %(name)s and c.relkind in ('r', 'p', 'v', 'm', 'f');
