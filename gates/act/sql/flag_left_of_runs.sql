-- How many rows of the flag are not off, and the companies of those that have a name as a drill gives it. %(flag)s
select count(*) as left_on,
       coalesce(jsonb_agg(jsonb_build_object('id', c.id, 'name', c.name)) filter (where c.name like 'drill-%%'), '[]') as named
from public.feature_flags f left join public.companies c on c.id = f.company_id
where f.key = %(flag)s and f.enabled is distinct from false;
