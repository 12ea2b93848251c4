-- id: sql/spot/indexes-valid
-- claim: No index is invalid or not ready.
-- cost: A build that was cancelled left an index that costs every write and serves no query.
-- severity: warn
-- reads: catalogue
-- covers: N02
select i.indexrelid::regclass::text as subject,
       format('valid %s, ready %s, live %s', indisvalid, indisready, indislive) as detail,
       pg_get_indexdef(i.indexrelid) as witness
from pg_index i
join pg_class c on c.oid = i.indrelid
join pg_namespace n on n.oid = c.relnamespace
where not (i.indisvalid and i.indisready and i.indislive)
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  -- a build that runs right now is no left-over; whoever may not see its statistics sees its session, and its lock
  and not exists (
    select from pg_stat_progress_create_index p join pg_locks l on l.pid = p.pid
    where p.datname = current_database() and l.relation = i.indrelid and l.mode = 'ShareUpdateExclusiveLock');

-- seen:
select count(*) as seen from pg_index i join pg_class c on c.oid = i.indrelid
where c.relnamespace in (select oid from pg_namespace where nspname = any('{public}'));
