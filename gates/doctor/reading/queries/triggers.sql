-- Triggers of the deployment's own: when they fire.
select t.tgrelid::bigint as oid, t.tgname as name, t.tgtype::int as fires, t.tgenabled <> 'D' as enabled
from pg_catalog.pg_trigger t
where not t.tgisinternal and t.tgrelid = any(%(oids)s::oid[])
order by 1, 2;
