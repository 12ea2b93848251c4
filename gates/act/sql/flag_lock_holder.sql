-- Who has the lock of the flag. %(flag)s
select l.pid, a.usename::text as login, a.application_name as application,
  case when a.state = 'active' and a.wait_event_type = 'Client' then 'waiting for its client' else a.state end as state,
  extract(epoch from clock_timestamp() - a.state_change)::float8 as state_s,
  extract(epoch from clock_timestamp() - a.xact_start)::float8 as transaction_s
from pg_locks l
join pg_database d on d.oid = l.database and d.datname = current_database()
left join pg_stat_activity a on a.pid = l.pid
where l.locktype = 'advisory' and l.granted and l.objsubid = 1
  and (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('replaygate:' || %(flag)s, 0)
order by l.pid;
