-- Connections by role and state.
select usename, coalesce(state, 'hidden') as state, count(*) as sessions, max(now() - xact_start) as oldest_transaction
from pg_stat_activity where datname = current_database() group by 1, 2 order by 3 desc;
