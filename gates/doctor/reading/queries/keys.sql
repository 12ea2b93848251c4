-- Unique indexes (also those of constraints) that are valid, for every row or for a part. columns: the plain ones;
-- expression: the whole definition, where there are others. An index `where a is not null` over a counts as one for every row: nulls are distinct anyway.
select i.indrelid::bigint as oid, c.relname as name, i.indisprimary as is_primary,
       i.indpred is not null and not exists (
         select from pg_catalog.pg_attribute a
         where a.attrelid = i.indrelid and a.attnum = any(i.indkey)
           and pg_catalog.pg_get_expr(i.indpred, i.indrelid) = format('(%%I IS NOT NULL)', a.attname)
       ) as partial, substr(pg_catalog.pg_get_expr(i.indpred, i.indrelid), 1, 1000) as predicate, i.indnullsnotdistinct as nulls_not_distinct,
       case when i.indexprs is not null then substr(pg_catalog.pg_get_indexdef(i.indexrelid), 1, 1000) end as expression,
       array(
         select a.attname::text from unnest(i.indkey[0:i.indnkeyatts - 1]) with ordinality as k (number, place)
         join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number
         order by k.place
       ) as columns
from pg_catalog.pg_index i
join pg_catalog.pg_class c on c.oid = i.indexrelid
where i.indisunique and i.indisvalid and i.indislive and i.indrelid = any(%(oids)s::oid[])
order by 1, 2;
