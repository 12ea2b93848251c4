-- The sessions that block this one, directly or indirectly, without the text of their queries. %(pid)s
with recursive chain (pid) as (
  select unnest(pg_blocking_pids(%(pid)s::int))
  union
  select b.pid from chain c cross join lateral unnest(pg_blocking_pids(c.pid)) as b (pid) where c.pid <> 0
)
select c.pid, a.usename::text as login, a.application_name as application,
  case when a.state = 'active' and a.wait_event_type = 'Client' then 'waiting for its client' else a.state end as state,
  extract(epoch from clock_timestamp() - a.state_change)::float8 as state_s,
  extract(epoch from clock_timestamp() - a.xact_start)::float8 as transaction_s
from chain c
left join pg_stat_activity a on a.pid = c.pid
where c.pid = 0 or not exists (select from unnest(pg_blocking_pids(c.pid)))
order by c.pid;
