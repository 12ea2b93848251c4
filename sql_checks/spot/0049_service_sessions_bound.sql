-- id: sql/spot/service-sessions-bound
-- claim: Where sessions are exempt from row-level security (those of monitors and operators are), others are bound by it.
-- cost: The program may have been started with the wrong login; which session is whose cannot be seen here.
-- severity: warn
-- reads: catalogue
-- covers: J01
with {{contract_tables}}, owners as (
  select distinct c.relowner from pg_class c join contract on contract.name = c.relname
  where c.relnamespace = 'public'::regnamespace
), sessions as (
  select a.pid, a.application_name, r.rolname, r.rolsuper or exists (select from owners o where pg_has_role(r.oid, o.relowner, 'MEMBER'))
           as is_owner,
         r.rolbypassrls
  from pg_stat_activity a -- whose backend_type is hidden from a login without pg_read_all_stats, unlike the user
  join pg_roles r on r.oid = a.usesysid
  where a.datname = current_database() and a.pid <> pg_backend_pid() and coalesce(a.backend_type, 'client backend') = 'client backend'
    and coalesce(a.application_name, '') !~* '^(replaygate|psql|pg_|pgadmin|dbeaver|datagrip|postgres_exporter|datadog)'
)
select format('session of %s', rolname) as subject,
       format('%s sessions exempt from row security, and none that is bound by it', count(*)) as detail,
       string_agg(distinct application_name, ', ') as witness
from sessions s
where (is_owner or rolbypassrls) and not exists (select from sessions o where not (o.is_owner or o.rolbypassrls))
group by rolname;

-- seen:
select count(*) as seen from pg_stat_activity where datname = current_database();
