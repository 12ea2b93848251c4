-- Every ordinary table of the schema with a column company_id of type uuid that we may read.
select c.relname::text as name from pg_class c join pg_attribute a on a.attrelid = c.oid
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
  and a.attname = 'company_id' and a.atttypid = 'uuid'::regtype and not a.attisdropped
  and has_table_privilege(c.oid, 'select')
order by 1
