-- id: sql/spot/policies-take-over-no-row
-- claim: No policy for UPDATE lets a role take over rows that are not its own.
-- cost: A policy that checks only the new row (USING is true) lets its role take over any row.
-- severity: warn
-- reads: catalogue
-- covers: J04 J05
with {{tenant_tables}}
select format('%s policy %s', t.name, p.polname) as subject,
       'USING is true for every row, and WITH CHECK is not' as detail,
       pg_get_expr(p.polwithcheck, p.polrelid) as witness
from pg_policy p
join tenant_tables t on t.oid = p.polrelid
where p.polpermissive and p.polcmd in ('w', '*')
  and pg_get_expr(p.polqual, p.polrelid) in ('true', '(true)')
  and pg_get_expr(p.polwithcheck, p.polrelid) not in ('true', '(true)');

-- seen:
with {{tenant_tables}}
select count(*) as seen from tenant_tables;
