-- id: sql/spot/lint-policies-in-use
-- claim: No table has policies while row-level security is off, none has it on without any policy, and no partition has it off where its table has it on.
-- cost: Somebody relies on a protection that is not there, or nobody can read the table.
-- severity: investigate
-- reads: catalogue
-- covers: J02 J03
select c.oid::regclass::text as subject,
       case when c.relrowsecurity then 'row-level security without a policy'
            when c.relispartition then 'a partition without row-level security: one GRANT on it shows all of its rows'
            else 'policies, but row-level security is off' end as detail,
       null::text as witness
from pg_class c
where c.relkind in ('r', 'p') and c.relnamespace in (select oid from pg_namespace where nspname = any('{public}'))
  and case when c.relispartition -- it is read through its table, whose policies count
    then not c.relrowsecurity and (select t.relrowsecurity from pg_class t where t.oid = pg_partition_root(c.oid))
    else c.relrowsecurity <> exists (select from pg_policy p where p.polrelid = c.oid) end;

-- seen:
select count(*) as seen from pg_class where relkind in ('r', 'p') and relnamespace in (select oid from pg_namespace where nspname = any('{public}'));
