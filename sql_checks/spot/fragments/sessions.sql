owners as (
  select distinct c.relowner from pg_class c join contract on c.oid = to_regclass(contract.name)
), sessions as (
  select a.pid, a.application_name, r.rolname, r.rolsuper or exists (select from owners o where pg_has_role(r.oid, o.relowner, 'MEMBER'))
           as is_owner,
         r.rolbypassrls,
         coalesce(pg_has_role(r.oid, (select oid from pg_roles where rolname = 'replay_service'), 'MEMBER')
                  or pg_has_role(r.oid, (select oid from pg_roles where rolname = 'replay_worker'), 'MEMBER'), false) and not r.rolsuper as is_service,
         -- the worker of a service looks for work each second; who asks the catalogue for logins and numbers is a pooler or a monitor; what
         -- a session does is hidden from a login without pg_read_all_stats
         coalesce(a.state = 'idle' and (a.state_change < now() - interval '1 minute'
           or a.query ~* '\m(pg_(shadow|authid|roles|user|database|settings|stat_\w+|statio_\w+|locks|replication_slots)|\w*get_auth|user_(lookup|search))\M'), a.state is null)
           as is_aside
  from pg_stat_activity a -- whose backend_type is hidden from a login without pg_read_all_stats, unlike the user
  join pg_roles r on r.oid = a.usesysid
  where a.datname = current_database() and a.pid <> pg_backend_pid() and coalesce(a.backend_type, 'client backend') = 'client backend'
    and coalesce(a.application_name, '') !~* '^(replaygate|psql|pg_|pgadmin|dbeaver|datagrip|postgres_exporter|datadog)'
)
