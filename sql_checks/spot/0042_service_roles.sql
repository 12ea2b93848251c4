-- id: sql/spot/service-roles
-- claim: The service's and the worker's roles are neither superuser nor BYPASSRLS. They own no table of the contract, no function
--   that its policies ask, no schema of either, and no function that guards the trail or the budgets.
-- cost: Row-level security does not bind the service: one forgotten condition shows a tenant the rows of all.
-- severity: page
-- reads: catalogue
-- covers: J01
with {{tenant_tables}}, asked as (
  select distinct f.oid, f.pronamespace
  from pg_policy p
  join tenant_tables t on t.oid = p.polrelid and t.promised
  join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = p.oid and d.refclassid = 'pg_proc'::regclass
  join pg_proc f on f.oid = d.refobjid
), owned as (
  select name, relowner as owner from tenant_tables where promised
  union all
  -- the owner of a schema may drop what is in it
  select format('schema %s', nspname), nspowner from pg_namespace
  where nspname = any('{public}') or oid in (select pronamespace from asked)
  union all
  -- the owner of a function may replace it
  select f.oid::regprocedure::text, f.proowner
  from pg_proc f
  where f.oid in (
    select tgfoid from pg_trigger
    where tgrelid in (to_regclass('public.audit_logs'), to_regclass('public.replay_budgets')) and not tgisinternal
    union
    select oid from asked)
)
select r.rolname::text as subject,
       concat_ws(', ', case when r.rolsuper then 'superuser' end, case when r.rolbypassrls then 'BYPASSRLS' end) as detail,
       null::text as witness
from pg_roles r
where r.rolname in ('replay_service', 'replay_worker', 'authenticated', 'anon') and (r.rolsuper or r.rolbypassrls)
union all
select r.rolname::text, format('owns, or may act as the owner of, %s', string_agg(o.name, ', ')), null
from pg_roles r
join owned o on pg_has_role(r.oid, o.owner, 'MEMBER')
where r.rolname in ('replay_service', 'replay_worker', 'authenticated', 'anon') and not r.rolsuper
group by r.rolname;

-- seen:
select count(*) as seen from pg_roles where rolname in ('replay_service', 'replay_worker');
