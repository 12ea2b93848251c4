-- id: sql/spot/lint-one-permissive-policy
-- claim: No table has two permissive policies for one role and one command.
-- cost: Permissive policies are combined with OR: a reviewer who reads only one of them is misled.
-- severity: investigate
-- reads: catalogue
select p.polrelid::regclass::text as subject,
       format('%s policies for %s', count(*), coalesce(nullif(r.role, 0::oid)::regrole::text, 'PUBLIC')) as detail,
       string_agg(p.polname, ', ') as witness
from pg_policy p
cross join lateral unnest(p.polroles) r(role)
cross join unnest(array['r', 'a', 'w', 'd']) cmd
join pg_class c on c.oid = p.polrelid and c.relnamespace in (select oid from pg_namespace where nspname = any('{public}'))
where p.polpermissive and p.polcmd in (cmd::"char", '*')
group by p.polrelid, r.role, cmd having count(*) > 1;

-- seen:
select count(*) as seen from pg_policy;
