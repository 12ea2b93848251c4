-- Moves the admitted calls of a rate-limit bucket into the past.
update public.edge_rate_limits
set hits = array(select h - make_interval(secs => %s) from unnest(hits) with ordinality as u(h, n) order by n)
where key like %s
