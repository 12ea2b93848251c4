-- id: sql/spot/flags-as-planned
-- claim: The rollout flag stands on a step of the plan, or before the first one, every rollout is between 0 and 100 %, no cached query plan keeps an old flag value, and no answer is NULL.
-- cost: The gate and the service do not agree on who gets the release.
-- severity: warn
-- covers: H08
with plan as (
  select string_to_array(coalesce(nullif(current_setting('replaygate.steps', true), ''), '10,50,100'), ',')::int[] as steps
)
select key as subject,
       format('enabled %s at %s %%; allowed: %s, or less than the first of them', enabled, rollout_percentage,
              array_to_string(steps, ', ')) as detail,
       coalesce(company_id::text, 'global') as witness
from public.feature_flags, plan
where key = 'outbox.enabled' and company_id is null
  and (rollout_percentage is null or rollout_percentage <> all(steps) and rollout_percentage >= steps[1])
union all
select key, format('rollout %s', coalesce(rollout_percentage::text, 'NULL')), coalesce(company_id::text, 'global')
from public.feature_flags
where rollout_percentage is null or rollout_percentage not between 0 and 100 or enabled is null
union all
select p.oid::regprocedure::text, 'is declared IMMUTABLE: a change of a flag need not count in a session that has asked before', null
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where format('%I.%I', n.nspname, p.proname) = 'public.is_feature_enabled' and p.provolatile = 'i'
union all
select 'outbox.enabled', 'is_feature_enabled answers NULL for no tenant; it is never NULL', null
where public.is_feature_enabled('outbox.enabled', null::uuid) is null
union all
select 'outbox.enabled', 'there is no global row', null
where not exists (select from public.feature_flags where key = 'outbox.enabled' and company_id is null);

-- seen:
select count(*) as seen from public.feature_flags;
