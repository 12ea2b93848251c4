-- CHECK constraints over one column, as text: the values that a column may hold.
select k.conrelid::bigint as oid, a.attname as column, substr(pg_catalog.pg_get_constraintdef(k.oid), 1, 4000) as definition
from pg_catalog.pg_constraint k
join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = k.conkey[1]
where k.contype = 'c' and cardinality(k.conkey) = 1 and k.conrelid = any(%(oids)s::oid[])
order by 1, 2;
