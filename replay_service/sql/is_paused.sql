-- Whether everybody or this company is paused. The lock_timeout of the session is back from here on.
SELECT public.is_company_paused(%(company_id)s::uuid), set_config('lock_timeout', %(lock_timeout)s, true)
