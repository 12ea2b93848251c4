-- Every flag, as the view shows it.
select key, company_id::text as company_id, company_name, enabled, rollout_percentage, updated_at::text as updated_at
from public.feature_flags_status
order by key, company_id nulls first;
