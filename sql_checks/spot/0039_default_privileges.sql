-- id: sql/spot/default-privileges
-- claim: Default privileges give anon and PUBLIC no tables and sequences.
-- cost: The next table is open to everybody on the day it is made.
-- severity: warn
-- reads: catalogue
-- covers: J23
select format('default privileges of %s', pg_get_userbyid(d.defaclrole)) as subject,
       format('%s gets %s on new %s', case a.grantee when 0 then 'PUBLIC' else 'anon' end, string_agg(a.privilege_type, ', '),
              case d.defaclobjtype when 'r' then 'tables' else 'sequences' end) as detail,
       d.defaclacl::text as witness
from pg_default_acl d
left join pg_namespace n on n.oid = d.defaclnamespace
cross join aclexplode(d.defaclacl) a
where d.defaclobjtype in ('r', 'S') and (n.nspname is null or n.nspname = any('{public}'))
  and case a.grantee when 0 then true else pg_has_role((select oid from pg_roles where rolname = 'anon'), a.grantee, 'USAGE') end
group by d.defaclrole, a.grantee, d.defaclobjtype, d.defaclacl;

-- seen:
select count(*) as seen from pg_roles where rolname in ('anon', 'authenticated');
