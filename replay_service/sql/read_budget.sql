-- The same amount as lock_budget.sql, without a lock.
SELECT least(
  daily_limit::bigint - CASE WHEN day = (now() AT TIME ZONE 'UTC')::date THEN daily_used ELSE 0 END,
  monthly_limit::bigint - CASE WHEN month = date_trunc('month', now() AT TIME ZONE 'UTC')::date THEN monthly_used ELSE 0 END
)
FROM public.replay_budgets
WHERE company_id = %(company_id)s::uuid
