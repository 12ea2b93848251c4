-- The checklist's statement; what is not given stays as it is. %(company)s %(daily)s %(monthly)s
insert into public.replay_budgets (company_id, daily_limit, monthly_limit)
values (%(company)s::uuid, coalesce(%(daily)s::int, 500), coalesce(%(monthly)s::int, 10000))
on conflict (company_id) do update
set daily_limit = coalesce(%(daily)s::int, replay_budgets.daily_limit),
    monthly_limit = coalesce(%(monthly)s::int, replay_budgets.monthly_limit)
returning company_id::text as company_id, daily_limit, monthly_limit;
