-- id: sql/spot/no-public-grants
-- claim: anon and PUBLIC hold nothing on tables with tenant data and their views that row-level security does not take back.
-- cost: Whoever has the public key reads the table.
-- severity: page
-- reads: catalogue
-- covers: J23
with {{tenant_tables}}, {{open_grants}}
select name as subject,
       format('%s holds %s, and nothing stops it', case grantee when 0 then 'PUBLIC' else 'anon' end, string_agg(privilege_type, ', ')) as detail,
       null::text as witness
from given
where not is_stopped
group by name, grantee;

-- seen:
with {{tenant_tables}}
select count(*) as seen from tenant_tables;
