-- id: sql/spot/replay-budgets-status
-- claim: The budget controls are active: budgets are there, and none has a negative or missing amount (query 5 of the checklist).
-- cost: A replay costs more than the tenant agreed to.
-- severity: page
select company_id::text as subject,
       format('daily %s of %s, monthly %s of %s', daily_used, daily_limit, monthly_used, monthly_limit) as detail,
       null::text as witness
from public.replay_budgets
where daily_used < 0 or monthly_used < 0 or daily_limit < 0 or monthly_limit < 0
   or daily_used is null or monthly_used is null or daily_limit is null or monthly_limit is null;

-- seen:
SELECT * FROM public.replay_budgets_status;
