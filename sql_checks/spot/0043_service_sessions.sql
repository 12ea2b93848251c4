-- id: sql/spot/service-sessions
-- claim: The sessions of service and worker run as neither superuser nor owner nor BYPASSRLS.
-- cost: The program was started with the wrong login: no policy binds it.
-- severity: page
-- reads: catalogue
-- covers: J01
with {{contract_tables}}, {{sessions}}
select format('session of %s', rolname) as subject,
       format('%s sessions exempt from row security', count(*)) as detail,
       string_agg(distinct application_name, ', ') as witness
from sessions s
-- an exempt login counts as the service's if it is a member of the service role and no owner, as an operator's is
where rolbypassrls and is_service and not is_owner
   or is_owner and rolname in ('replay_service', 'replay_worker')
group by rolname;

-- seen:
-- a service without a pool has no session now: drill/identity/service-login-is-bound sees the one of its own request
select count(*) as seen from pg_stat_activity where datname = current_database();
