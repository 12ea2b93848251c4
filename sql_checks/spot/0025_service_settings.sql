-- id: sql/spot/service-settings
-- claim: No setting of a role or of the database, nor one of the server that the gate's sessions do not set for themselves, switches off
--   triggers, durable commits, checks of pages, writes or row-level security, makes a session without claims a tenant's, limits the
--   statements of service, worker or tenants to a few milliseconds, or gives service and worker different zones where times bear none;
--   and both may log in again.
-- cost: A rule of the schema is not enforced in these sessions, although it is in the gate's.
-- severity: warn
-- reads: catalogue
-- covers: I09 J01
with given as (
  -- the setting that counts: of the role in this database, else of the role, else of the database, else of the server
  select distinct on (r.rolname, split_part(c.text, '=', 1)) r.rolname, split_part(c.text, '=', 1) as name,
         lower(substr(c.text, strpos(c.text, '=') + 1)) as value, c.whose
  from pg_roles r
  cross join lateral (
    select unnest(s.setconfig), 2 * (s.setrole = 0)::int + (s.setdatabase = 0)::int, ''
    from pg_db_role_setting s
    where s.setrole in (r.oid, 0)
      and s.setdatabase in ((select oid from pg_database where datname = current_database()), 0)
    union all
    select format('%s=%s', g.name, g.reset_val), 4, ' for the whole server'
    from pg_settings g where g.source in ('configuration file', 'command line', 'environment variable')
  ) c(text, place, whose)
  where r.rolname in ('replay_service', 'replay_worker', 'authenticated', 'anon')
  order by r.rolname, split_part(c.text, '=', 1), c.place
), zones as (
  select r.rolname, regexp_replace(coalesce(g.value, 'utc'), '^(etc/)?(utc|gmt|uct|zulu|universal|greenwich)$', 'utc') as zone
  from unnest(array['replay_service', 'replay_worker']) r(rolname)
  left join given g on g.rolname = r.rolname and lower(g.name) = 'timezone'
)
select format('sessions of %s', rolname) as subject, format('%s is %s%s', name, value, whose) as detail, null::text as witness
from given, (values ('^(of|off|f|fa|fal|fals|false|n|no|0)$')) off(falsy)
where name = 'session_replication_role' and value <> 'origin'
   or name in ('zero_damaged_pages', 'ignore_checksum_failure', 'ignore_system_indexes', 'lo_compat_privileges')
      and value !~ falsy
   or name = 'row_security' and value ~ falsy
   or name like 'request.jwt.%' and value ~ '[^{}\s]'
   -- whoever waits for no lock may say so
   or rolname <> 'anon'
      and name in ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout', 'lock_timeout')
      and case when value ~ '^[\d.]+ *(us|ms|s)?$' then replace(value || ' ms', 's ms', 's')::interval end
          between '0.5 ms' and case name when 'lock_timeout' then interval '9 ms' else '99 ms' end
   or rolname in ('replay_service', 'replay_worker')
      and (name = 'synchronous_commit' and value in ('off', 'false', 'no', '0')
        or name = 'default_transaction_read_only' and value !~ falsy
        -- a service that comes in as a tenant, or may not take the role, reads and writes nothing
        or name = 'role' and (value in ('authenticated', 'anon') or value <> 'none' and not exists (
          select from pg_roles o where lower(o.rolname) = value and pg_has_role(given.rolname, o.oid, 'MEMBER'))))
union all
select format('sessions of %s', s.rolname), format('timezone is %s, and %s where %s works', s.zone, w.zone, w.rolname), name
from zones s
join zones w on w.rolname > s.rolname and w.zone <> s.zone
cross join unnest(array['public.event_outbox.inserted_at', 'public.event_outbox.next_attempt_at', 'public.event_outbox.claimed_until',
                        'public.dead_letter_queue.retry_after']) name
cross join lateral parse_ident(name) i(words)
join pg_attribute a on a.attrelid = to_regclass(quote_ident(words[1]) || '.' || quote_ident(words[2])) and a.attname = words[3]
where a.atttypid = 'timestamp'::regtype
union all
select format('sessions of %s', rolname),
       case when not rolcanlogin then 'it may not log in any more (NOLOGIN)'
            when 0 in (rolconnlimit, datconnlimit) then 'it may have no connection (CONNECTION LIMIT 0)'
            when not may_connect then format('it may not connect to database %s', datname)
            when rolvaliduntil < now() then format('its password was valid until %s', rolvaliduntil)
            else format('event trigger %s refuses its login', refused_by) end,
       'a session that is open stays; after the next restart there is none'
from pg_roles
join pg_database on datname = current_database()
cross join lateral (select has_database_privilege(pg_roles.oid, pg_database.oid, 'CONNECT') as may_connect) m
cross join lateral (
  select min(e.evtname) as refused_by from pg_event_trigger e join pg_proc f on f.oid = e.evtfoid
  where e.evtevent = 'login' and e.evtenabled in ('O', 'A')
    -- in the branch of its user; to log, or to warn, refuses nobody
    and f.prosrc ~* format('\m(session|current)?_?user\s*(=|in\s*\()[^);]*''%s''((?!\m(return|else|elsif|elseif|end\s+if)\M).)*\mraise'
                           || '\s+(?!(debug|log|info|notice|warning)\M)', rolname)) l
where rolname in ('replay_service', 'replay_worker') and not rolsuper
  -- a role without a login may be one that others are members of
  and (rolcanlogin or exists (select from pg_stat_activity a where a.usesysid = pg_roles.oid and a.datname = current_database()))
  and (not rolcanlogin or 0 in (rolconnlimit, datconnlimit) or rolvaliduntil < now() or not may_connect or refused_by is not null);

-- seen:
select count(*) as seen from pg_roles where rolname in ('replay_service', 'replay_worker', 'authenticated', 'anon');
