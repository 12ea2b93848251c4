-- The tenants nearest to their replay budgets.
select * from public.replay_budgets_status limit 50;
