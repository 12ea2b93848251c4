-- No row means the defaults: write them down, so that there is a row to lock.
INSERT INTO public.replay_budgets (company_id)
VALUES (%(company_id)s::uuid)
ON CONFLICT (company_id) DO NOTHING
