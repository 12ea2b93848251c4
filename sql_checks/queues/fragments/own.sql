own as (
  -- all tables and views of the queue, with their partitions
  select distinct coalesce(t.relid::oid, r.oid) as oid
  from unnest({{own_tables}}) name
  join pg_namespace n on n.nspname = {{schema_text}}
  join pg_class r on r.relnamespace = n.oid and r.relname = name
  left join lateral pg_partition_tree(r.oid) t on true
)
