-- What the company may still replay in the current UTC day and month; the row stays locked until the end.
SELECT least(
  daily_limit::bigint - CASE WHEN day = (now() AT TIME ZONE 'UTC')::date THEN daily_used ELSE 0 END,
  monthly_limit::bigint - CASE WHEN month = date_trunc('month', now() AT TIME ZONE 'UTC')::date THEN monthly_used ELSE 0 END
)
FROM public.replay_budgets
WHERE company_id = %(company_id)s::uuid
FOR UPDATE
