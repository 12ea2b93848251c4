undelivered as materialized (
  select id, company_id, aggregate_key, inserted_at, next_attempt_at, claimed_until
  from public.event_outbox
  where processed_at is null and dead_at is null
    and {{not_excluded}}
    and {{not_crowded}}
), held as materialized (
  select t.company_id
  from (select distinct company_id from undelivered) t
  where not public.is_feature_enabled('outbox.enabled', t.company_id)
     or exists (select from public.agent_controls a
                where a.agents_paused and (a.company_id is null or a.company_id = t.company_id))
), moves as materialized (
  -- when a switch (of a tenant; null: of everybody) was last put on; until then its events may have been held, not late
  select company_id, max(resumed_at) as resumed_at, max(enabled_at) as enabled_at
  from (select company_id, updated_at as resumed_at, null::timestamptz as enabled_at from public.agent_controls where not agents_paused
        union all
        select company_id, null, updated_at from public.feature_flags where key = 'outbox.enabled' and enabled) switches
  group by company_id
), everybody as materialized (
  select max(resumed_at) as resumed_at, max(enabled_at) as enabled_at from moves where company_id is null
), waiting as materialized (
  select u.*, greatest(u.inserted_at, case when a.resumed_at <= now() then a.resumed_at end,
                       case when a.enabled_at <= now() then a.enabled_at end,
                       case when m.resumed_at <= now() then m.resumed_at end,
                       case when m.enabled_at <= now() then m.enabled_at end) as live_since
  from undelivered u cross join everybody a left join moves m using (company_id)
  where not exists (select from held h where h.company_id = u.company_id)
), delivered as materialized (
  select o.company_id, o.processed_at,
         greatest(o.inserted_at, case when a.resumed_at <= o.processed_at then a.resumed_at end,
                  case when a.enabled_at <= o.processed_at then a.enabled_at end,
                  case when m.resumed_at <= o.processed_at then m.resumed_at end,
                  case when m.enabled_at <= o.processed_at then m.enabled_at end) as live_since
  from public.event_outbox o cross join everybody a left join moves m using (company_id)
  where processed_at > now() - interval '10 minutes'
    and {{not_excluded}}
    and {{not_crowded}}
)
