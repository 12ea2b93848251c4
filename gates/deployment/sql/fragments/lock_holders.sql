-- who holds locks on tables (on the catalogue's: alone, as VACUUM FULL does), but for those that anybody shares: transactions older than our wait, and those whose age is hidden from this login
(
  select string_agg(h.said, '; ' order by h.is_gate, h.since)
  from (
    select format('%s holds locks on %s', coalesce(
             'prepared transaction ' || quote_literal(x.gid),
             format('session %s of %s (application %s%s)', l.pid, a.usename, quote_literal(coalesce(a.application_name, '')), ', ' || a.state)),
             string_agg(distinct quote_ident(c.relname), ', ')) || coalesce(', in a transaction since ' || coalesce(a.xact_start, x.prepared), '') as said,
           coalesce(a.xact_start, x.prepared) as since,
           coalesce(a.application_name = 'replaygate', false) as is_gate, bool_and(coalesce(a.application_name = 'replaygate', false)) over () as are_gates
    from pg_locks l
    join pg_class c on c.oid = l.relation and c.relkind in ('r', 'p')
      and (c.relnamespace <> 'pg_catalog'::regnamespace or l.mode = 'AccessExclusiveLock')
    left join pg_stat_activity a on a.pid = l.pid
    -- a prepared transaction keeps the number of the session that it was made in, and a lock on its own
    left join pg_locks o on l.pid is null and o.pid is null and o.virtualtransaction = l.virtualtransaction and o.locktype = 'transactionid'
    left join pg_prepared_xacts x on x.transaction = o.transactionid
    where l.granted and l.database = (select oid from pg_database where datname = current_database())
      and l.mode not in ('AccessShareLock', 'ShareUpdateExclusiveLock') and l.pid is distinct from pg_backend_pid()
      and coalesce(a.xact_start < clock_timestamp() - current_setting('lock_timeout')::interval, true)
    group by l.pid, a.usename, a.application_name, a.state, a.xact_start, x.gid, x.prepared
    order by is_gate, since
    limit 3
  ) h
  where h.are_gates or not h.is_gate
)
