-- %(pid)s
select pg_terminate_backend(%(pid)s::int) as ended;
