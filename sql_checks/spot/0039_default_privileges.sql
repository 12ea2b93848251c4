-- id: sql/spot/default-privileges
-- claim: Neither default privileges nor event triggers give anon and PUBLIC tables and sequences, nor tenants TRUNCATE, and none switches
--   row-level security off.
-- cost: The next table is open to everybody on the day it is made.
-- severity: warn
-- reads: catalogue
-- covers: J23
select format('default privileges of %s', pg_get_userbyid(d.defaclrole)) as subject,
       format('%s gets %s on new %s', case a.grantee when 0 then 'PUBLIC' else min(r.rolname) end, string_agg(a.privilege_type, ', '),
              case d.defaclobjtype when 'r' then 'tables' else 'sequences' end) as detail,
       d.defaclacl::text as witness
from pg_default_acl d
left join pg_namespace n on n.oid = d.defaclnamespace
cross join aclexplode(d.defaclacl) a
-- whoever comes in as anon; or as a tenant, whom row-level security does not keep from TRUNCATE
left join pg_roles r on a.grantee <> 0 and r.rolname in ('anon', case a.privilege_type when 'TRUNCATE' then 'authenticated' end)
  and pg_has_role(r.oid, a.grantee, 'USAGE')
where d.defaclobjtype in ('r', 'S') and (n.nspname is null or n.nspname = any('{public}'))
  and (a.grantee = 0 or r.oid is not null)
group by d.defaclrole, a.grantee, d.defaclobjtype, d.defaclacl
union all
select format('event trigger %s', e.evtname), 'opens tables as they are made', statement
from pg_event_trigger e
join pg_proc f on f.oid = e.evtfoid
cross join lateral regexp_split_to_table(regexp_replace(regexp_replace(f.prosrc, '/\*.*?\*/', ' ', 'g'), '--[^\n]*', ' ', 'g'), ';') statement
where e.evtenabled in ('O', 'A')
  and (statement ~* '\m(disable|no force) row level security'
    or statement ~* format('\mgrant\s+(all|select|insert|update|delete|truncate)\M.*\mto\M.*\m(public|%s)\M', 'anon')
      and statement !~* '\mon\s+(schema|all functions|functions?|procedure|routines?|types?|database)\M'
      -- a schema of its own; one that is filled in may be any
      and coalesce(substring(statement from '(?i)\min schema\s+"?([\w%]+)'), substring(statement from '(?i)\mon\s+(?:table\s+)?"?([a-z_]\w*)"?\.'),
                   '%') = any('{public}'::text[] || array['%', '%I', '%s']));

-- seen:
select count(*) as seen from pg_roles where rolname in ('anon', 'authenticated');
