-- The flags, global rows first.
select key, company_id, enabled, rollout_percentage, updated_at from public.feature_flags
order by company_id nulls first, key limit 100;
