-- Triggers, and whether they are enabled.
select format('%s.%s', c.oid::regclass, t.tgname) as name,
       format('%s [%s]', pg_get_triggerdef(t.oid), t.tgenabled) as definition
from pg_trigger t
join pg_class c on c.oid = t.tgrelid
where not c.relispartition and c.relnamespace in (select oid from pg_namespace where nspname = any('{public}')) and not t.tgisinternal
order by 1;
