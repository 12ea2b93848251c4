-- Which path an event of this company takes at this moment.
SELECT
  CASE
    WHEN
      public.is_company_paused(%(company_id)s::uuid)
      OR public.is_feature_enabled('outbox.enabled', %(company_id)s::uuid)
      THEN 'outbox'
    ELSE 'direct'
  END,
  EXISTS (SELECT FROM public.companies WHERE id = %(company_id)s::uuid AND starts_with(name, 'drill-'))
