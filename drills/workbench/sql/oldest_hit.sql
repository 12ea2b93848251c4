-- The age in seconds of the oldest admitted call of a rate-limit bucket.
select extract(epoch from clock_timestamp() - min(h))::float8 from public.edge_rate_limits, unnest(hits) h
where key like %s
