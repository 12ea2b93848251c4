-- The global row of the flag alone, readable whatever the other rows hold. %(flag)s
select enabled, rollout_percentage, version
from public.feature_flags
where key = %(flag)s and company_id is null
limit 1;
