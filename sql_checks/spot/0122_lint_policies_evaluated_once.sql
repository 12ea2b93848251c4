-- id: sql/spot/lint-policies-evaluated-once
-- claim: Policies read claims and settings once per statement, in a sub-select.
-- cost: Reading a large table calls the function once for every row.
-- severity: investigate
-- reads: catalogue
with policies as (
  select p.polrelid, p.polname,
         concat_ws(' ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) as text
  from pg_policy p join pg_class c on c.oid = p.polrelid
  where c.relnamespace in (select oid from pg_namespace where nspname = any('{public}'))
)
select format('%s policy %s', polrelid::regclass, polname) as subject,
       'auth.jwt() or current_setting() outside of a sub-select' as detail, text as witness
from policies
where text ~* '(auth\.[a-z]+|current_setting)\(' and text !~* 'select';

-- seen:
select count(*) as seen from pg_policy;
