-- Charge the items moved to the current UTC day and month; what was used in another period counts as nothing.
UPDATE public.replay_budgets
SET
  daily_used = CASE WHEN day = (now() AT TIME ZONE 'UTC')::date THEN daily_used ELSE 0 END + %(items)s,
  monthly_used
    = CASE WHEN month = date_trunc('month', now() AT TIME ZONE 'UTC')::date THEN monthly_used ELSE 0 END + %(items)s,
  day = (now() AT TIME ZONE 'UTC')::date,
  month = date_trunc('month', now() AT TIME ZONE 'UTC')::date
WHERE company_id = %(company_id)s::uuid
