-- Read back: the limits as they are kept. %(company)s
select company_id::text as company_id, daily_limit, monthly_limit
from public.replay_budgets
where company_id = %(company)s::uuid;
