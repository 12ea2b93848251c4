heap as (
  select coalesce(t.relid::oid, r.oid) as oid, r.relname = any({{deleting_tables}}) as deletes
  from unnest({{heap_tables}}) name
  join pg_namespace n on n.nspname = {{schema_text}}
  join pg_class r on r.relnamespace = n.oid and r.relname = name
  left join lateral pg_partition_tree(r.oid) t on true
  where coalesce(t.isleaf, true)
)
