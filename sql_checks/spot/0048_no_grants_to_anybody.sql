-- id: sql/spot/no-grants-to-anybody
-- claim: PUBLIC holds nothing on tables with tenant data, their views and sequences, and anon nothing but SELECT and USAGE; neither may create in public.
-- cost: One policy too many lets anyone read the table.
-- severity: warn
-- reads: catalogue
-- covers: J23
with {{tenant_tables}}, {{open_grants}}
select name as subject,
       format('%s holds %s', case grantee when 0 then 'PUBLIC' else 'anon' end, string_agg(privilege_type, ', ')) as detail,
       null::text as witness
from given
-- anon may hold rights that show no row and write none: platforms grant these by default
where is_stopped and (grantee = 0 or privilege_type not in ('SELECT', 'USAGE'))
group by name, grantee;

-- seen:
with {{tenant_tables}}
select count(*) as seen from tenant_tables;
