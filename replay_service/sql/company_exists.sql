-- A tenant exists once its row does.
SELECT EXISTS (SELECT FROM public.companies WHERE id = %(company_id)s::uuid)
