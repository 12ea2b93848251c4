-- id: sql/spot/rate-limit-exact
-- claim: No tenant and address had more requests admitted within one window than the rate limit allows.
-- cost: The limit lets more through than it says: a client's loop replays until the budget is gone.
-- severity: page
-- covers: C10 C11
with recent as (
  -- a UUID is the same in capitals and in small letters, and a client the same from each of its ports
  select regexp_replace(case when split_part(key, ':', 2) ~* '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then lower(key) else key end,
                        '(:\d+\.\d+\.\d+\.\d+):\d+$', '\1') as key, hits
  from public.edge_rate_limits
  where key like 'replay:%' and split_part(key, ':', 2) <> all(coalesce(nullif(current_setting('replaygate.excluded', true), ''), '{}')::text[])
  order by window_start desc limit 1000
), admitted as (
  select key, h.hit, lead(h.hit, {{limit_calls}}) over (partition by key order by h.hit) as one_more
  from recent cross join lateral unnest(hits) h(hit)
  -- what is older may have been admitted under another limit, and lies there until its key is used again
  where h.hit > now() - 4 * make_interval(secs => {{limit_window_s}})
)
select key as subject,
       format('{{limit_calls}} requests and one more were admitted from %s to %s', min(hit), min(one_more)) as detail,
       string_agg(hit::text, ', ' order by hit) as witness
from admitted
-- a request is admitted a moment before or after its time is written
where one_more < hit + make_interval(secs => {{limit_window_s}}) - interval '5 seconds'
group by key;

-- seen:
select count(*) as seen from (select from public.edge_rate_limits where key like 'replay:%' limit 1000) k;
