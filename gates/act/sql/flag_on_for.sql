-- Read back by the very function that service and worker ask: companies for which the flag is on. It looks at all of
-- them but the spared ones, and stops at a hundred. It sees rows that this login may not. %(flag)s %(spared)s
select c.id::text as id, c.name
from public.companies c
where c.id::text <> all(%(spared)s) and public.is_feature_enabled(%(flag)s, c.id)
limit 100;
