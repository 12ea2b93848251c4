-- The global row of the flag, then the tenants' rows, the least on first: where any disagrees with a step, it is among the
-- first 1,000. %(flag)s
select company_id::text as company_id, enabled, rollout_percentage, version
from public.feature_flags
where key = %(flag)s
order by company_id is not null, enabled nulls first, rollout_percentage nulls first, company_id
limit 1001;
