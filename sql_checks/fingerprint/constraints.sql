-- Constraints but NOT NULL, which are constraints from PostgreSQL 18 on and part of the columns before.
select format('%s.%s', c.oid::regclass, k.conname) as name,
       concat_ws(' ', pg_get_constraintdef(k.oid), case when not k.convalidated then 'NOT VALID' end) as definition
from pg_constraint k
join pg_class c on c.oid = k.conrelid
where not c.relispartition and c.relnamespace in (select oid from pg_namespace where nspname = any('{public}')) and k.contype <> 'n'
order by 1;
