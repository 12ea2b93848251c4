-- id: sql/spot/rate-limit-exact
-- claim: No more requests of one tenant and address were admitted within the window of the rate limit than it allows.
-- cost: The limit lets more through than it says: a client's loop replays until the budget is gone.
-- severity: page
-- covers: C10 C11
select key as subject,
       format('{{limit_calls}} requests and one more were admitted from %s to %s', min(hit), min(one_more)) as detail,
       hits::text as witness
from (
  select * from public.edge_rate_limits
  where key like 'replay:%' and split_part(key, ':', 2) <> all(coalesce(nullif(current_setting('replaygate.excluded', true), ''), '{}')::text[])
  order by window_start desc limit 1000
) recent
cross join lateral (
  select h.hit, lead(h.hit, {{limit_calls}}) over (order by h.hit) as one_more from unnest(recent.hits) h(hit)
) next
-- a request is admitted a moment before or after its time is written
where one_more < hit + make_interval(secs => {{limit_window_s}}) - interval '5 seconds'
group by key, hits;

-- seen:
select count(*) as seen from (select from public.edge_rate_limits where key like 'replay:%' limit 1000) k;
