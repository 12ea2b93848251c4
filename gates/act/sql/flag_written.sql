-- How many rows of the flags this session has written lately: those of this transaction are what it grows by, whatever
-- others write. It does not grow for a view, or where nothing is counted (track_counts).
select coalesce(sum(s.n_tup_ins + s.n_tup_upd + s.n_tup_del), 0)::bigint as written
from pg_stat_xact_all_tables s
where s.relid = 'public.feature_flags'::regclass;
