-- Indexes, and why one is unusable. Leaves out those that are being built or rebuilt: sql/spot/indexes-valid.
select format('%s.%s', t.oid::regclass, c.relname) as name,
       concat_ws(' ', pg_get_indexdef(i.indexrelid), case when not (i.indisvalid and i.indisready) then 'INVALID' end) as definition
from pg_index i
join pg_class c on c.oid = i.indexrelid
join pg_class t on t.oid = i.indrelid
where (i.indisvalid or not exists (
    select from pg_stat_progress_create_index p join pg_locks l on l.pid = p.pid
    where p.datname = current_database() and l.relation = i.indrelid and l.mode = 'ShareUpdateExclusiveLock'))
  and not t.relispartition and t.relnamespace in (select oid from pg_namespace where nspname = any('{public}'))
order by 1;
