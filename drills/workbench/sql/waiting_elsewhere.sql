-- How many events of other tenants could be delivered now: due, claimed by nobody, switched on, not paused.
select count(*) from public.event_outbox o left join public.companies c on c.id = o.company_id
where o.processed_at is null and o.dead_at is null and (o.claimed_until is null or o.claimed_until <= now())
  and (o.next_attempt_at is null or o.next_attempt_at <= now()) and coalesce(c.name, '') not like 'drill-%'
  and public.is_feature_enabled('outbox.enabled', o.company_id)
  and not exists (
    select from public.agent_controls a where a.agents_paused and (a.company_id is null or a.company_id = o.company_id)
  )
