-- Every row of the flag, the global one first. %(flag)s
select company_id::text as company_id, enabled, rollout_percentage, version
from public.feature_flags
where key = %(flag)s
order by company_id nulls first;
