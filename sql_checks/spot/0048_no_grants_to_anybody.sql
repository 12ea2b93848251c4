-- id: sql/spot/no-grants-to-anybody
-- claim: anon and PUBLIC hold nothing at all on tables with tenant data, their views and sequences, and cannot create in public.
-- cost: One policy too many, and the whole world reads the table.
-- severity: warn
-- reads: catalogue
-- covers: J23
with {{tenant_tables}}, {{open_grants}}
select name as subject,
       format('%s holds %s', case grantee when 0 then 'PUBLIC' else 'anon' end, string_agg(privilege_type, ', ')) as detail,
       null::text as witness
from given
where is_stopped
group by name, grantee;

-- seen:
with {{tenant_tables}}
select count(*) as seen from tenant_tables;
