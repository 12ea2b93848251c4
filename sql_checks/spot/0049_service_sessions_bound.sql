-- id: sql/spot/service-sessions-bound
-- claim: Where sessions are exempt from row-level security (those of monitors, poolers and operators are), and do not stand idle, others
--   are bound by it.
-- cost: The program may have been started with the wrong login; which session is whose cannot be seen here.
-- severity: warn
-- reads: catalogue
-- covers: J01
with {{contract_tables}}, {{sessions}}
select format('session of %s', rolname) as subject,
       format('%s sessions exempt from row security, and none that is bound by it', count(*)) as detail,
       string_agg(distinct application_name, ', ') as witness
from sessions s
where (is_owner or rolbypassrls) and not is_aside and not exists (select from sessions o where not (o.is_owner or o.rolbypassrls))
group by rolname;

-- seen:
-- a service without a pool has no session now: drill/identity/service-login-is-bound sees the one of its own request
select count(*) as seen from pg_stat_activity where datname = current_database();
