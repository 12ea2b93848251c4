-- One gate acts on a flag at a time; the lock ends with the transaction. %(flag)s
select pg_try_advisory_xact_lock(hashtextextended('replaygate:' || %(flag)s, 0)) as locked;
