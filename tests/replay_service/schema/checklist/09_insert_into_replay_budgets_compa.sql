INSERT INTO replay_budgets (company_id, daily_limit, monthly_limit)
VALUES ('company-id', 1000, 20000)
ON CONFLICT (company_id) 
DO UPDATE SET daily_limit = EXCLUDED.daily_limit, monthly_limit = EXCLUDED.monthly_limit;
