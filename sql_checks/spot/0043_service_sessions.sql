-- id: sql/spot/service-sessions
-- claim: What is connected as service and worker is neither superuser nor owner nor BYPASSRLS.
-- cost: The program was started with the wrong login; every policy is decoration.
-- severity: page
-- reads: catalogue
-- covers: J01
with {{tenant_tables}}, sessions as (
  select a.pid, a.application_name, r.rolname,
         coalesce(pg_has_role(r.oid, to_regrole('replay_service'), 'MEMBER')
                  or pg_has_role(r.oid, to_regrole('replay_worker'), 'MEMBER'), false) and not r.rolsuper as is_service,
         r.rolsuper or r.rolbypassrls
           or exists (select from tenant_tables t where pg_has_role(r.oid, t.relowner, 'MEMBER')) as is_exempt
  from pg_stat_activity a
  join pg_roles r on r.oid = a.usesysid
  where a.datname = current_database() and a.pid <> pg_backend_pid() and a.leader_pid is null
    and coalesce(a.application_name, '') !~* '^(replaygate|psql|pg_|pgadmin|autovacuum)'
)
select format('session of %s', rolname) as subject,
       format('%s sessions exempt from row security', count(*))
         || case when bool_or(is_service) then '' else ', and none of replay_service or replay_worker' end as detail,
       string_agg(distinct application_name, ', ') as witness
from sessions
where is_exempt and (is_service or not exists (select from sessions s where s.is_service))
group by rolname;

-- seen:
select count(*) as seen from pg_stat_activity where datname = current_database();
