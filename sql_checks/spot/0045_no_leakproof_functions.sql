-- id: sql/spot/no-leakproof-functions
-- claim: No function of ours is marked LEAKPROOF.
-- cost: The planner runs it before the policy; its errors show other tenants' rows.
-- severity: page
-- reads: catalogue
-- covers: J18
select p.oid::regprocedure::text as subject, 'marked LEAKPROOF' as detail, pg_get_userbyid(p.proowner)::text as witness
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
where p.proleakproof and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  -- of others' functions (extensions, the platform's schemas) we know nothing
  and (n.nspname = any('{public}') or p.proowner in (
        select c.relowner from pg_class c where c.oid in (to_regclass('public.replay_runs'), to_regclass('public.audit_logs'))))
  and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e');

-- seen:
select count(*) as seen from pg_proc p where p.pronamespace in (select oid from pg_namespace where nspname = any('{public}'));
