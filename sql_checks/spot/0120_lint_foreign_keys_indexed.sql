-- id: sql/spot/lint-foreign-keys-indexed
-- claim: Every foreign key is covered by an index.
-- cost: Deleting a parent scans the whole child table under a lock.
-- severity: investigate
-- reads: catalogue
select c.conrelid::regclass::text as subject, format('foreign key %s has no index', c.conname) as detail,
       pg_get_constraintdef(c.oid) as witness
from pg_constraint c
where c.contype = 'f' and c.connamespace in (select oid from pg_namespace where nspname = any('{public}'))
  and not exists (
    select from pg_index i
    where i.indrelid = c.conrelid
      -- An index that leaves out nothing but nulls of the key's own column serves the key as well.
      and (i.indpred is null or pg_get_expr(i.indpred, i.indrelid) in (
        select format('(%I IS NOT NULL)', a.attname)
        from pg_attribute a where a.attrelid = c.conrelid and a.attnum = any (c.conkey)))
      and (select array_agg(k order by k) from unnest(i.indkey[0:cardinality(c.conkey) - 1]) k)
        = (select array_agg(k order by k) from unnest(c.conkey) k));

-- seen:
select count(*) as seen from pg_constraint where connamespace in (select oid from pg_namespace where nspname = any('{public}'));
