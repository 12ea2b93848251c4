-- Write the rows of minutes that are over.
SELECT public.flush_refusals()
