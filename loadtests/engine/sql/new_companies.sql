-- The companies of a run: ids, then names in the same order.
INSERT INTO public.companies (id, name)
SELECT t.id, t.name FROM unnest(%s::uuid[], %s::text[]) AS t (id, name)
