-- What is not given stays as it is. %(company)s %(daily)s %(monthly)s
update public.replay_budgets
set daily_limit = coalesce(%(daily)s::int, daily_limit), monthly_limit = coalesce(%(monthly)s::int, monthly_limit)
where company_id = %(company)s::uuid
returning company_id::text as company_id, daily_limit, monthly_limit;
