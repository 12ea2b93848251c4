-- Waits until nobody else is changing a row of the flag: one that is off may be about to go on. %(flag)s
select count(*) as held from (select key from public.feature_flags where key = %(flag)s for update) f;
