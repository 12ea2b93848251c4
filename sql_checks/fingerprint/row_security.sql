-- Row-level security: enabled and forced.
select c.oid::regclass::text as name,
       format('%s, %s', case when c.relrowsecurity then 'enabled' else 'off' end,
              case when c.relforcerowsecurity then 'forced' else 'not forced' end) as definition
from pg_class c
where not c.relispartition and c.relnamespace in (select oid from pg_namespace where nspname = any('{public}')) and c.relkind in ('r', 'p')
order by 1;
