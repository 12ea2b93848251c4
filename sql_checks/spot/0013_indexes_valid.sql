-- id: sql/spot/indexes-valid
-- claim: No index of the deployment's schemas is invalid or not ready, and the server sorts text as when the indexes were built.
-- cost: A build that was cancelled left an index that costs every write and serves no query; in one of another order, rows
--   are not found, and a unique key lets a second row in.
-- severity: warn
-- reads: catalogue
-- covers: N02
with {{contract_tables}}, {{contract_parts}}
select i.indexrelid::regclass::text as subject,
       format('valid %s, ready %s, live %s', indisvalid, indisready, indislive) as detail,
       pg_get_indexdef(i.indexrelid) as witness
from pg_index i
join pg_class c on c.oid = i.indrelid
join pg_namespace n on n.oid = c.relnamespace
where not (i.indisvalid and i.indisready and i.indislive)
  and (n.nspname = any('{public}') or i.indrelid in (select oid from parts))
  -- a build that runs right now is no left-over; whoever may not see its statistics sees its session, and its lock
  and not exists (
    select from pg_stat_progress_create_index p join pg_locks l on l.pid = p.pid
    where p.datname = current_database() and l.relation = i.indrelid and l.mode = 'ShareUpdateExclusiveLock')
union all
select format('collation %s', l.collname),
       format('indexes of it were built by version %s, and the server sorts by %s', v.built, v.now),
       format('reindex; then refresh the version of the collation, or of database %s', current_database())
from (
  select distinct c.oid
  from pg_index i
  join pg_class r on r.oid = i.indrelid
  cross join unnest(i.indcollation::oid[]) c(oid)
  where r.relnamespace in (select oid from pg_namespace where nspname = any('{public}'))
) used
join pg_collation l on l.oid = used.oid
join pg_database d on d.datname = current_database()
-- the default collation is the database's
cross join lateral (
  select case l.collprovider when 'd' then d.datcollversion else l.collversion end as built,
         case l.collprovider when 'd' then pg_database_collation_actual_version(d.oid) else pg_collation_actual_version(used.oid) end as now
) v
where v.built <> v.now;

-- seen:
select count(*) as seen from pg_index i join pg_class c on c.oid = i.indrelid
where c.relnamespace in (select oid from pg_namespace where nspname = any('{public}'));
