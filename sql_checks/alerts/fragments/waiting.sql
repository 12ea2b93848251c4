undelivered as materialized (
  select id, company_id, aggregate_key, inserted_at, next_attempt_at, claimed_until
  from event_outbox
  where processed_at is null and dead_at is null
    and {{not_excluded}}
), held as materialized (
  select t.company_id
  from (select distinct company_id from undelivered) t
  where not is_feature_enabled('outbox.enabled', t.company_id)
     or exists (select from agent_controls a
                where a.agents_paused and (a.company_id is null or a.company_id = t.company_id))
), waiting as materialized (
  select u.* from undelivered u where not exists (select from held h where h.company_id = u.company_id)
), delivered as materialized (
  select company_id, inserted_at, processed_at
  from event_outbox
  where processed_at > now() - interval '10 minutes'
    and {{not_excluded}}
)
