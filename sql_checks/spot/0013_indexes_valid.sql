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
  -- a build that runs right now is no left-over
  and not exists (select from pg_stat_progress_create_index p where p.index_relid = i.indexrelid);

-- seen:
select count(*) as seen from pg_index i join pg_class c on c.oid = i.indrelid
where c.relnamespace in (select oid from pg_namespace where nspname = any('{public}'));
