-- Delivery lag of the last ten minutes: median, p95, slowest, in seconds.
select count(*) as delivered,
       percentile_disc(0.5) within group (order by lag_s) as p50_s,
       percentile_disc(0.95) within group (order by lag_s) as p95_s,
       max(lag_s) as max_s
from (select extract(epoch from processed_at - inserted_at) as lag_s
      from public.event_outbox where processed_at > now() - interval '10 minutes') lags;
