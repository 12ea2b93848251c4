-- All rows but the global one of the flag, those of a key as their number and sum: a step changes none of them.
-- First its tenants' rows; the keys from the thousandth on are one row, without a name. %(flag)s
select case when count(*) = 1 then min(k.key) end as key, sum(k.rows) as rows, sum(k.held) as held
from (
  select f.key, count(*) as rows, row_number() over (order by f.key <> %(flag)s, f.key) as place,
         sum(hashtextextended(jsonb_build_array(f.company_id, f.enabled, f.rollout_percentage)::text, 0)) as held
  from public.feature_flags f
  where f.key <> %(flag)s or f.company_id is not null
  group by f.key
) k
group by least(k.place, 1000)
order by least(k.place, 1000);
