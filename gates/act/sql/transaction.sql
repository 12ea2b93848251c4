-- The ids by which others find out what became of this transaction, and who blocks it.
select pg_backend_pid() as pid, pg_current_xact_id()::text as xid;
