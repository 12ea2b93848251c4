-- Replay limits in use: admitted requests of the last five minutes by tenant and client, and when there is room again.
select key, hits_5m, greatest(0, 3 - hits_5m) as left_5m,
       case when hits_5m >= 3 then oldest + interval '5 minutes' end as room_at
from (select l.key, count(h.at) as hits_5m, min(h.at) as oldest
      from public.edge_rate_limits l left join lateral unnest(l.hits) h(at) on h.at > now() - interval '5 minutes'
      where l.key like 'replay:%' group by l.key) used
where hits_5m > 0 order by hits_5m desc, key limit 50;
