-- id: sql/spot/lint-primary-keys
-- claim: Every table has a primary key.
-- cost: Rows cannot be told apart or replicated.
-- severity: investigate
-- reads: catalogue
select c.oid::regclass::text as subject, 'no primary key' as detail, null::text as witness
from pg_class c
where c.relkind in ('r', 'p') and c.relnamespace in (select oid from pg_namespace where nspname = any('{public}'))
  and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)
  and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e');

-- seen:
select count(*) as seen from pg_class where relkind in ('r', 'p') and relnamespace in (select oid from pg_namespace where nspname = any('{public}'));
