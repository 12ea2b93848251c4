-- Read back by the very function that service and worker ask: a company for which the flag is on. It looks at all of
-- them, and stops at the first. It sees rows that this login may not. %(flag)s
select c.id::text as company from public.companies c where public.is_feature_enabled(%(flag)s, c.id) limit 1;
