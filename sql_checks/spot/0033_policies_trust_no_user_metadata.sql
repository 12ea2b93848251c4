-- id: sql/spot/policies-trust-no-user-metadata
-- claim: No policy on a table with tenant data, and no function that one asks, reads metadata that users can edit; and none believes what tenants may write into another table as they like.
-- cost: A user grants themselves another tenant.
-- severity: page
-- reads: catalogue
-- covers: J25
with recursive {{tenant_tables}}, policies as materialized (
  select p.oid, p.polrelid, format('%s policy %s', p.polrelid::regclass, p.polname) as name,
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
where a.text ~* 'user_?metadata|user_meta_data'
union all
select distinct p.name, format('it believes %s.%s, which tenants write as they like', c.oid::regclass, a.attname), p.text
from policies p
join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = p.oid and d.refclassid = 'pg_class'::regclass
  and d.refobjid <> p.polrelid
join pg_class c on c.oid = d.refobjid and c.relkind in ('r', 'p')
join pg_attribute a on a.attrelid = c.oid and a.attnum = d.refobjsubid and a.attnum > 0
cross join (values ('INSERT', 'a', 4), ('UPDATE', 'w', 16)) k(privilege, command, bit)
join pg_roles r on r.rolname in ('authenticated', 'anon') and has_column_privilege(r.oid, c.oid, a.attnum, k.privilege)
where has_schema_privilege(r.oid, c.relnamespace, 'usage')
  -- a trigger may refuse what the privileges allow
  and not exists (select from pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal and t.tgtype::int & k.bit <> 0
                  and t.tgtype::int & 2 <> 0)
  and (not c.relrowsecurity or exists (
    select from pg_policy w
    where w.polrelid = c.oid and w.polpermissive and w.polcmd in (k.command, '*')
      and exists (select from unnest(w.polroles) m where m = 0 or pg_has_role(r.oid, m, 'usage')))
    and not exists (
      select from pg_policy w
      join pg_depend e on e.classid = 'pg_policy'::regclass and e.objid = w.oid and e.refclassid = 'pg_class'::regclass
        and e.refobjid = c.oid and e.refobjsubid = a.attnum
      where w.polrelid = c.oid and w.polcmd in (k.command, '*')));

-- seen:
select count(*) as seen from pg_policy;
