-- Views: options, columns and text. How the text qualifies columns differs between versions; see normalise().
select c.oid::regclass::text as name,
       concat_ws(' ', coalesce(array_to_string(c.reloptions, ', '), 'no options'),
                 (select string_agg(format('%s %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' order by a.attnum)
                  from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
                 pg_get_viewdef(c.oid)) as definition
from pg_class c
where not c.relispartition and c.relnamespace in (select oid from pg_namespace where nspname = any('{public}')) and c.relkind in ('v', 'm')
  and not exists (select from pg_depend d where d.objid = c.oid and d.classid = 'pg_class'::regclass and d.deptype = 'e')
order by 1;
