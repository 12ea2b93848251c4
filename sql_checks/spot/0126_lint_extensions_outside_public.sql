-- id: sql/spot/lint-extensions-outside-public
-- claim: No extension lives in the schema public.
-- cost: Its functions are offered to every tenant.
-- severity: investigate
-- reads: catalogue
-- covers: N13
select e.extname::text as subject, format('version %s in schema public', e.extversion) as detail, null::text as witness
from pg_extension e
where e.extnamespace in (select oid from pg_namespace where nspname = any('{public}'));

-- seen:
select count(*) as seen from pg_extension;
