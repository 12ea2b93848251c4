-- committed, aborted or in progress; null where that is no longer known. %(xid)s
select pg_xact_status(%(xid)s::xid8) as status;
