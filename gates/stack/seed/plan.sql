-- What happened when, in temporary tables: events, dead letters, replay runs and who replayed what.
-- Every time is now() minus something, so the history always ends a moment ago.

-- Ordinary events: one a minute for a day, one a second for the last 15 minutes, so that ten-minute windows
-- have enough samples (149 without a failure show a rate under 2 %) even some minutes later. Lag: 0.15 to 0.84 s.
create temporary table seed_events on commit drop as
select
    n,
    md5(current_setting('seed.company') || ' event ' || n)::uuid as event_id,
    (array['shipment.created', 'shipment.updated', 'invoice.issued', 'route.planned'])[1 + n % 4] as event_type,
    'shipment-' || n % 97 as aggregate_key,
    jsonb_build_object('shipment', n % 97, 'step', n) as payload,
    at as inserted_at,
    at + make_interval(secs => 0.15 + n * 37 % 70 / 100.0) as processed_at
from (
    select n, now() - make_interval(mins => 1455 - n) as at from generate_series(1, 1440) as n
    union all
    select n, now() - make_interval(secs => 2342 - n) as at from generate_series(1441, 2340) as n
) as moments;

-- Replay runs: one every 5 minutes with one item for a day; one every 45 s with 4 items in the last 15 minutes.
-- Five operators at five addresses, so nobody comes near 3 calls in 5 minutes.
create temporary table seed_runs on commit drop as
select
    n,
    md5(current_setting('seed.company') || ' run ' || n)::uuid as run_id,
    'routine-' || lpad(n::text, 4, '0') as idempotency_key,
    at as requested_at,
    at + make_interval(secs => 0.8) as completed_at,
    items,
    1 + sum(items) over (order by n) - items as first_item,
    n % 5 as operator,
    n in (50, 170, 240) as failed
from (
    select n, now() - make_interval(mins => 1440 + 15 - 5 * n) as at, 1 as items from generate_series(1, 287) as n
    union all
    select n, now() - make_interval(secs => 45 * (308 - n) - 20) as at, 4 as items from generate_series(288, 307) as n
) as moments;

-- Dead letters: evenly over the day, so the last ten minutes look like all others; replayed in their order.
-- Every fourth comes from our own outbox, where its event died; the others come from other producers.
-- Item n of a failed run is still pending, and so is the last one, which nobody has replayed yet.
create temporary table seed_items on commit drop as
select
    i.n,
    md5(current_setting('seed.company') || ' item ' || i.n)::uuid as item_id,
    md5(current_setting('seed.company') || ' item event ' || i.n)::uuid as event_id,
    (array['carrier.webhook', 'customs.declared', 'label.printed'])[1 + i.n % 3] as event_type,
    jsonb_build_object('parcel', i.n) as payload,
    (array['timeout', 'bad_gateway', 'validation'])[1 + i.n % 3] as error_type,
    i.at as created_at,
    i.n % 4 = 0 and i.at < now() - interval '20 minutes' as ours,
    r.run_id,
    r.requested_at,
    r.completed_at,
    r.run_id is not null and not r.failed as resolved
from (
    select n, now() - make_interval(mins => 1481) + make_interval(secs => n * 241) as at
    from generate_series(1, 368) as n
) as i
left join seed_runs as r on i.n between r.first_item and r.first_item + r.items - 1;
