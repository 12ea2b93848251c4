-- The workers' progress. waits, held: an event of these tenants waits, or is claimed. own_moved, moved: within so many
-- seconds an event of theirs was processed, or anybody's settled, or a worker is at an event that a drill made slow.
-- passed_over: events so many seconds younger than the one that waits were settled. in_line: a replayed or scripted event
-- waits while others of that kind, but no younger one, are settled: workers may take few of these at a time.
with given as (
  select %s::uuid[] as ids, make_interval(secs => %s::float8) as lately, make_interval(secs => %s::float8) as younger
), outbox as not materialized (
  select o.inserted_at, o.processed_at, o.dead_at, o.claimed_until, o.payload,
         coalesce(o.company_id = any(given.ids), false) as own,
         o.replay_run_id is not null or o.payload ? 'drill' as in_line
  from given cross join public.event_outbox o
), waiting as (
  select min(inserted_at) as since, coalesce(bool_or(claimed_until > now()), false) as held,
         coalesce(bool_or(in_line), false) as in_line
  from outbox where own and processed_at is null and dead_at is null
), settled as (
  select inserted_at, own, in_line, processed_at is not null as processed
  from given, outbox where processed_at > clock_timestamp() - given.lately or dead_at > clock_timestamp() - given.lately
), slow as (
  select own from outbox
  where processed_at is null and dead_at is null and claimed_until > now() and payload -> 'drill' ? 'delay_ms'
), younger as (
  select settled.in_line from given, waiting, settled where not own and inserted_at > waiting.since + given.younger
)
select waiting.since is not null as waits,
       waiting.held,
       exists (select from settled where own and processed) as own_moved,
       exists (select from settled) or exists (select from slow) as moved,
       exists (select from younger) as passed_over,
       waiting.in_line and not exists (select from younger where in_line)
         and (exists (select from settled where in_line and not own) or exists (select from slow where not own)) as in_line
from waiting
