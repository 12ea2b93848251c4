-- Indexes, with what makes one useless.
select format('%s.%s', t.oid::regclass, c.relname) as name,
       concat_ws(' ', pg_get_indexdef(i.indexrelid), case when not (i.indisvalid and i.indisready) then 'INVALID' end) as definition
from pg_index i
join pg_class c on c.oid = i.indexrelid
join pg_class t on t.oid = i.indrelid
where not t.relispartition and t.relnamespace in (select oid from pg_namespace where nspname = any('{public}'))
order by 1;
