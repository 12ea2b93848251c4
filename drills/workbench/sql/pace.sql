-- How the workers get on: whether they processed something of these tenants, or of anybody, within so many seconds, or are at
-- an event that a drill wants to be slow; whether something of theirs waits, or is held by them; and whether what waits of theirs
-- was passed over by events so many seconds younger.
with given as (
  select %s::uuid[] as ids, make_interval(secs => %s::float8) as lately, make_interval(secs => %s::float8) as younger
), waiting as (
  select min(o.inserted_at) as since, coalesce(bool_or(o.claimed_until > now()), false) as held
  from given join public.event_outbox o on o.company_id = any(given.ids) and o.processed_at is null and o.dead_at is null
), processed as (
  select o.inserted_at, coalesce(o.company_id = any(given.ids), false) as own
  from given join public.event_outbox o on o.processed_at > clock_timestamp() - given.lately
)
select waiting.since is not null as waits,
       waiting.held,
       exists (select from processed where own) as own_moved,
       exists (select from processed) or exists (
         select from public.event_outbox o
         where o.processed_at is null and o.dead_at is null and o.claimed_until > now() and o.payload -> 'drill' ? 'delay_ms'
       ) as moved,
       exists (
         select from given, processed where not own and processed.inserted_at > waiting.since + given.younger
       ) as passed_over
from waiting
