-- id: sql/spot/no-leakproof-functions
-- claim: No function of the deployment is marked LEAKPROOF, and none that tells a policy who the caller is is marked IMMUTABLE.
-- cost: The planner runs it before the policy, or once for all who use a plan: one tenant sees the rows of another.
-- severity: page
-- reads: catalogue
-- covers: J18
with {{tenant_tables}}, asked as (
  select distinct d.refobjid as oid
  from pg_policy p
  join tenant_tables t on t.oid = p.polrelid
  join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = p.oid and d.refclassid = 'pg_proc'::regclass
)
select p.oid::regprocedure::text as subject, 'marked LEAKPROOF' as detail, pg_get_userbyid(p.proowner)::text as witness
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
where p.proleakproof and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  -- of others' functions (extensions, the platform's schemas) we know nothing
  and (n.nspname = any('{public}') or p.proowner in (
        select c.relowner from pg_class c where c.oid in (to_regclass('public.replay_runs'), to_regclass('public.audit_logs'))))
  and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e')
union all
select p.oid::regprocedure::text, 'marked IMMUTABLE, and its answer depends on who asks', pg_get_userbyid(p.proowner)::text
from pg_proc p
where p.provolatile = 'i' and p.prokind = 'f' and p.prolang in (select oid from pg_language where lanname in ('sql', 'plpgsql'))
  and pg_get_functiondef(p.oid) ~* 'current_setting|current_user|current_role|session_user|auth\.(jwt|uid|role)\('
  and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e')
  and exists (
    select from asked a join pg_proc f on f.oid = a.oid
    -- the function of the policy, or one that it calls by name
    where f.oid = p.oid or f.prokind = 'f' and strpos(pg_get_functiondef(f.oid), p.proname || '(') > 0);

-- seen:
select count(*) as seen from pg_proc p where p.pronamespace in (select oid from pg_namespace where nspname = any('{public}'));
