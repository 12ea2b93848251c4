-- Foreign keys of one column: which column refers to which table, and whether its rows are deleted with theirs.
select k.conrelid::bigint as oid, a.attname as column, k.confrelid::bigint as target, k.confdeltype = 'c' as cascades
from pg_catalog.pg_constraint k
join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = k.conkey[1]
where k.contype = 'f' and cardinality(k.conkey) = 1 and k.conrelid = any(%(oids)s::oid[])
order by 1, 2;
