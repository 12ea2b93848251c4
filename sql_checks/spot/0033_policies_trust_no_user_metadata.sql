-- id: sql/spot/policies-trust-no-user-metadata
-- claim: No policy on a table with tenant data, and no function that one asks, reads metadata that users can edit.
-- cost: A user grants themselves another tenant.
-- severity: page
-- reads: catalogue
-- covers: J25
with recursive {{tenant_tables}}, policies as materialized (
  select p.oid, format('%s policy %s', p.polrelid::regclass, p.polname) as name,
         concat_ws(' / ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) as text
  from pg_policy p
  join tenant_tables t on t.oid = p.polrelid
), functions as materialized (
  select f.oid, f.oid::regprocedure::text as shown, f.proname, coalesce(pg_get_function_sqlbody(f.oid), f.prosrc) as text
  from pg_proc f
  join pg_namespace n on n.oid = f.pronamespace
  where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and f.proname ~ '^[a-z0-9_]+$'
), asked as (
  -- what a policy calls depends on it; of what that calls in turn, its text alone tells
  select p.name, f.oid, f.shown, f.text
  from policies p
  join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = p.oid and d.refclassid = 'pg_proc'::regclass
  join functions f on f.oid = d.refobjid
  union
  select a.name, f.oid, f.shown, f.text
  from asked a
  join functions f on a.text ~ ('\m' || f.proname || '\s*\(')
)
select p.name as subject, 'the policy reads user metadata' as detail, p.text as witness
from policies p
where p.text ~* 'user_?metadata|user_meta_data'
union all
select a.name, format('it asks %s, which reads user metadata', a.shown), a.text
from asked a
where a.text ~* 'user_?metadata|user_meta_data';

-- seen:
select count(*) as seen from pg_policy;
