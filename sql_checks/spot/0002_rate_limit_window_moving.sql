-- id: sql/spot/rate-limit-window-moving
-- claim: The rate-limit windows move: count and window_start match the hits, which are sorted, oldest first, none of them NULL, endless or in the future (query 2 of the checklist).
-- cost: A window that stands still locks a tenant out for good, or lets everybody in.
-- severity: page
select key as subject,
       format('count %s and window_start %s, but %s hits from %s to %s%s', coalesce(count::text, 'null'),
              coalesce(window_start::text, 'null'), cardinality(hits), hits[1],
              hits[cardinality(hits)], case when array_position(hits, null) is not null then ', NULL among them' end) as detail,
       hits::text as witness
from (select * from public.edge_rate_limits where key like 'replay:%' order by window_start desc limit 1000) recent
where coalesce(count, 0) is distinct from cardinality(hits)
   or cardinality(hits) > 0 and (window_start is null or window_start <> all(hits))
   or array_position(hits, null) is not null
   or (select max(hit) > now() + interval '1 minute' or hits[1] > min(hit) + interval '1 minute' or not bool_and(isfinite(hit)) from unnest(hits) hit);

-- seen:
SELECT key, count, window_start FROM public.edge_rate_limits
WHERE key LIKE 'replay:%' ORDER BY window_start DESC LIMIT 5;
