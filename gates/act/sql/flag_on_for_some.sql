-- The same for a few companies: those with a row of their own first. %(flag)s %(spared)s
select s.id::text as id, (select c.name from public.companies c where c.id = s.id) as name
from (
  (select f.company_id as id from public.feature_flags f where f.key = %(flag)s and f.company_id is not null limit 50)
  union all
  (select c.id from public.companies c limit 50)
) s
where s.id::text <> all(%(spared)s) and public.is_feature_enabled(%(flag)s, s.id)
limit 100;
