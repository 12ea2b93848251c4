-- id: sql/spot/policies-trust-no-user-metadata
-- claim: No policy on a table with tenant data reads metadata that users can edit.
-- cost: A user grants themselves another tenant.
-- severity: page
-- reads: catalogue
-- covers: J25
with {{tenant_tables}}
select format('%s policy %s', p.polrelid::regclass, p.polname) as subject,
       'the policy reads user metadata' as detail,
       concat_ws(' / ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) as witness
from pg_policy p
join tenant_tables t on t.oid = p.polrelid
where concat_ws(' ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) ~* 'user_?metadata|user_meta_data';

-- seen:
select count(*) as seen from pg_policy;
