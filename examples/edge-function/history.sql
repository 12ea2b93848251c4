-- A day of healthy history of one organisation, by the clock of the database: events with their effects, failed jobs
-- and the replays that recovered them, and the trail. Every time is now() minus something.

insert into app.orgs (id, display_name) values (current_setting('history.org')::bigint, 'Harbour & Sons');
insert into app.orgs (display_name) select 'customer ' || n from generate_series(1, 40) n;
insert into app.org_members (org_id, user_id, role)
values (current_setting('history.org')::bigint, 'c0ffee00-0000-4000-8000-000000000001', 'admin');
insert into app.flags (name, org_id, is_on, percent, note) values
  ('outbox.enabled', null, true, 10, 'Events go through the outbox'),
  ('dlq.replay.enabled', null, true, 100, 'Failed jobs can be replayed'),
  ('security.signing_v2_required', null, false, 0, 'Signatures need a time');

-- one event a minute, one a second in the last quarter of an hour
create temporary table past_events on commit drop as
select md5('event ' || n)::uuid as id, (array['order.placed', 'order.paid', 'parcel.sent'])[1 + n % 3] as kind,
  'order-' || n % 89 as stream, jsonb_build_object('order', n % 89, 'step', n) as body, at,
  at + make_interval(secs => 0.1 + n * 31 % 60 / 100.0) as done_at
from (
  select n, now() - make_interval(mins => 1455 - n) as at from generate_series(1, 1440) n
  union all select n, now() - make_interval(secs => 2342 - n) from generate_series(1441, 2340) n
) as moments;

-- a replay every five minutes with one job; one every 45 s with four in the last quarter of an hour
create temporary table past_replays on commit drop as
select n, md5('replay ' || n)::uuid as id, at, at + interval '0.7 s' as done_at, items,
  1 + sum(items) over (order by n) - items as first_job, n in (60, 190) as went_wrong
from (
  select n, now() - make_interval(mins => 1455 - 5 * n) as at, 1 as items from generate_series(1, 287) n
  union all select n, now() - make_interval(secs => 45 * (308 - n) - 20), 4 from generate_series(288, 307) n
) as moments;

create temporary table past_jobs on commit drop as
select j.n, md5('job ' || j.n)::uuid as event_id, (array['webhook.sent', 'label.printed'])[1 + j.n % 2] as kind,
  jsonb_build_object('parcel', j.n) as body, j.at, j.n % 4 = 0 and j.at < now() - interval '20 min' as ours,
  r.id as replay_id, r.at as replayed_at, r.done_at, r.id is not null and not r.went_wrong as recovered
from (select n, now() - make_interval(mins => 1481) + make_interval(secs => n * 241) as at from generate_series(1, 368) n) j
left join past_replays r on j.n between r.first_job and r.first_job + r.items - 1;

insert into ops.domain_events (id, org_id, kind, stream, body, route, recorded_at)
select id, current_setting('history.org')::bigint, kind, stream, body, 'queued', at from past_events
union all
select event_id, current_setting('history.org')::bigint, kind, null, body, 'queued', at - interval '31 s' from past_jobs where ours
order by 7;

insert into ops.failed_jobs (org_id, event_id, kind, body, error_class, error_detail, tries, not_before, state, failed_at, replay_id)
select current_setting('history.org')::bigint, event_id, kind, body, (array['http_503', 'unreachable', 'http_422'])[1 + n % 3],
  'partner system', (replay_id is not null and not recovered)::int, coalesce(done_at, at) + interval '1 min',
  case when recovered then 'recovered' else 'waiting' end, at, replay_id
from past_jobs order by at;

insert into ops.outbox_messages (event_id, org_id, kind, stream, body, created_at, delivered_at, abandoned_at, tries, not_before, replay_id)
select event_id, current_setting('history.org')::bigint, kind, stream, body, at, delivered_at, abandoned_at, tries, at, replay_id
from (
  select id as event_id, kind, stream, body, at, done_at as delivered_at, null::timestamptz as abandoned_at, 1 as tries, null::uuid as replay_id
  from past_events
  union all select event_id, kind, null, body, at - interval '31 s', null, at, 5, null from past_jobs where ours
  union all
  select event_id, kind, null, body, replayed_at, case when recovered then done_at end, case when not recovered then done_at end, 1, replay_id
  from past_jobs where replay_id is not null
) as messages
order by at;

insert into ops.effects (org_id, event_id, state, created_at, updated_at)
select current_setting('history.org')::bigint, id, 'ok', done_at, done_at from past_events
union all
select current_setting('history.org')::bigint, event_id, 'ok', done_at, done_at from past_jobs where recovered
order by 4;

insert into ops.replays (id, request_key, org_id, requested_by, request_digest, state, item_count, ok_count, bad_count, started_at, finished_at)
select id, 'nightly-' || n, current_setting('history.org')::bigint, 'operator-' || n % 5, md5(n::text), 'done', items,
  case when went_wrong then 0 else items end, case when went_wrong then items else 0 end, at, done_at
from past_replays order by at;

insert into ops.audit_trail (event, who, org_scope, targets, succeeded, failed, detail, trace_id, at)
select s.event, 'operator-' || r.n % 5, current_setting('history.org'), r.items,
  case when s.step = 1 or r.went_wrong then 0 else r.items end, case when s.step > 1 and r.went_wrong then r.items else 0 end,
  jsonb_build_object('replay_run_id', r.id, 'request_key', 'nightly-' || r.n), md5('trace ' || r.n),
  case when s.step = 1 then r.at else r.done_at end
from past_replays r
cross join (values (1, 'replay.started'), (2, 'replay.finished'), (3, 'replay.summary')) as s (step, event)
order by 9, s.step;

insert into ops.throttle (bucket, stamps)
select 'replay:' || current_setting('history.org') || ':192.0.2.' || 10 + n % 5, array_agg(at order by at)
from past_replays where at > now() - interval '5 min' group by n % 5;
