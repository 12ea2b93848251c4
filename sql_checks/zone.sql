-- The zone of the database's own sessions, where a time of an event, a task or a run says none: it is what such a time is in.
select coalesce(
  (select substr(setting, 10)
   from pg_db_role_setting d, unnest(d.setconfig) setting
   where d.setrole = 0 and d.setdatabase = (select oid from pg_database where datname = current_database())
     and setting ilike 'timezone=%'
   limit 1),
  -- initdb writes both alike, and a session sees of the other only what it was given itself
  current_setting('log_timezone')) as zone
where exists (
  select from pg_attribute
  where atttypid = 'timestamp without time zone'::regtype and not attisdropped and attrelid in (
    to_regclass('public.events'), to_regclass('public.event_outbox'), to_regclass('public.dead_letter_queue'),
    to_regclass('public.agent_tasks'), to_regclass('public.replay_runs')))
