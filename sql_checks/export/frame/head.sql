\set ON_ERROR_STOP on
\if :{?allow_unknown}
\else
\set allow_unknown 0
\endif
\set QUIET on
\pset tuples_only on
\pset format unaligned
begin transaction isolation level repeatable read read only;
set local statement_timeout = {{timeout_ms}};
set local search_path = pg_catalog, pg_temp;
set local timezone = 'UTC';
set local client_min_messages = notice;
select 'checked at ' || now() || set_config('replaygate.bad', '', true) || set_config('replaygate.unknown', '', true);
