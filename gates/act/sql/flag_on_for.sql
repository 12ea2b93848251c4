-- Read back by the very function that service and worker ask: companies for which the flag is still on, of the first
-- 20,000. It sees rows that this login may not. %(flag)s
select count(*) as companies, min(c.id::text) as first
from (select id from public.companies limit 20000) c
where public.is_feature_enabled(%(flag)s, c.id);
