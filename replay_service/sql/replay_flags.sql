-- The flags that a replay asks, in the order in which they are refused.
SELECT
  public.is_feature_enabled('dlq.replay.enabled', %(company_id)s::uuid),
  public.is_feature_enabled('outbox.enabled', %(company_id)s::uuid),
  public.is_feature_enabled('dlq.replay.budget_control', %(company_id)s::uuid)
