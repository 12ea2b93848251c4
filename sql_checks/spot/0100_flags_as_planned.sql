-- id: sql/spot/flags-as-planned
-- claim: The rollout flag stands on a step of the plan, and every rollout is between 0 and 100 %.
-- cost: The gate and the service do not agree on who gets the release.
-- severity: warn
-- covers: H08
select key as subject,
       format('enabled %s at %s %%; allowed: 0, 10, 50 or 100', enabled, rollout_percentage) as detail,
       coalesce(company_id::text, 'global') as witness
from public.feature_flags
where key = 'outbox.enabled' and company_id is null and (rollout_percentage is null or rollout_percentage not in (0, 10, 50, 100))
union all
select key, format('rollout %s', coalesce(rollout_percentage::text, 'NULL')), coalesce(company_id::text, 'global')
from public.feature_flags
where rollout_percentage is null or rollout_percentage not between 0 and 100 or enabled is null
union all
select 'outbox.enabled', 'there is no global row', null
where not exists (select from public.feature_flags where key = 'outbox.enabled' and company_id is null);

-- seen:
select count(*) as seen from public.feature_flags;
