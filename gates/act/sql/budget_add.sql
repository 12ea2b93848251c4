-- For a tenant without a row; another schema may lack the unique key. %(company)s %(daily)s %(monthly)s
insert into public.replay_budgets (company_id, daily_limit, monthly_limit)
values (%(company)s::uuid, coalesce(%(daily)s::int, 500), coalesce(%(monthly)s::int, 10000))
returning company_id::text as company_id, daily_limit, monthly_limit;
