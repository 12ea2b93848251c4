-- id: sql/spot/lint-policies-in-use
-- claim: No table has policies while row-level security is off, and none has it on without any policy.
-- cost: Somebody relies on a protection that is not there, or nobody can read the table.
-- severity: investigate
-- reads: catalogue
-- covers: J03
select c.oid::regclass::text as subject,
       case when c.relrowsecurity then 'row-level security without a policy' else 'policies, but row-level security is off' end as detail,
       null::text as witness
from pg_class c
where c.relkind in ('r', 'p') and c.relnamespace in (select oid from pg_namespace where nspname = any('{public}'))
  and c.relrowsecurity <> exists (select from pg_policy p where p.polrelid = c.oid)
  and not (c.relispartition and c.relrowsecurity); -- a partition is read through its table, whose policies count

-- seen:
select count(*) as seen from pg_class where relkind in ('r', 'p') and relnamespace in (select oid from pg_namespace where nspname = any('{public}'));
