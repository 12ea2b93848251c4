-- Columns of an enumerated type (also behind a domain), with its labels.
select a.attrelid::bigint as oid, a.attname as column,
       array(select e.enumlabel::text from pg_catalog.pg_enum e where e.enumtypid = t.oid order by e.enumsortorder limit 100) as labels
from pg_catalog.pg_attribute a
join pg_catalog.pg_type own on own.oid = a.atttypid
join pg_catalog.pg_type t on t.oid = case own.typtype when 'd' then own.typbasetype else own.oid end
where t.typtype = 'e' and a.attrelid = any(%(oids)s::oid[]) and a.attnum > 0 and not a.attisdropped
order by 1, 2;
