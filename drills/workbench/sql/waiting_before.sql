-- How many events of other tenants a worker still has before it: due, claimed by nobody, switched on, not paused. Those of
-- other drills count where they are older than what these tenants wait for, and nothing younger was processed meanwhile.
-- None where nothing at all was processed within so many seconds.
with mine as (
  select own.ids, min(o.inserted_at) as since
  from (select %s::uuid[] as ids) own
  left join public.event_outbox o on o.company_id = any(own.ids) and o.processed_at is null and o.dead_at is null
  group by own.ids
), passed_over as (
  select exists (
    select from public.event_outbox o
    where o.processed_at > mine.since and o.inserted_at > mine.since + interval '1 second'
      and (o.company_id = any(mine.ids)) is not true
  ) as it from mine
)
select count(*)
from mine, passed_over, public.event_outbox o left join public.companies c on c.id = o.company_id
where o.processed_at is null and o.dead_at is null and (o.claimed_until is null or o.claimed_until <= now())
  and (o.next_attempt_at is null or o.next_attempt_at <= now()) and (o.company_id = any(mine.ids)) is not true
  and (coalesce(c.name, '') not like 'drill-%%' or (o.inserted_at < mine.since and not passed_over.it))
  and public.is_feature_enabled('outbox.enabled', o.company_id)
  and not exists (
    select from public.agent_controls a where a.agents_paused and (a.company_id is null or a.company_id = o.company_id)
  )
  and exists (
    select from public.event_outbox where processed_at > clock_timestamp() - make_interval(secs => %s::float8)
  )
