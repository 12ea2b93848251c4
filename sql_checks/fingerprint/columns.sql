-- Columns of tables in public: type, nullability, default, identity, generation.
select format('%s.%s', c.oid::regclass, a.attname) as name,
       concat_ws(' ', format_type(a.atttypid, a.atttypmod), case when a.attnotnull then 'not null' end,
                 case when a.attidentity <> '' then 'identity ' || a.attidentity::text end,
                 case when a.attgenerated <> '' then 'generated' else 'default' end || ' ' || pg_get_expr(d.adbin, d.adrelid)) as definition
from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where not c.relispartition and c.relnamespace in (select oid from pg_namespace where nspname = any('{public}')) and c.relkind in ('r', 'p')
order by 1;
