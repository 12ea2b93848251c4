-- id: sql/spot/policies-not-always-true
-- claim: No permissive policy for public, anon or authenticated is true for every row or for rows without a tenant.
-- cost: The policy looks like protection and is none.
-- severity: page
-- reads: catalogue
-- covers: J04 J05
with {{tenant_tables}}, expressions as (
  select t.name, p.polname, p.polcmd, e.kind,
         regexp_replace(lower(e.text), '[\s()]|::[a-z]+', '', 'g') as bare, e.text
  from pg_policy p
  join tenant_tables t on t.oid = p.polrelid
  cross join lateral (
    values ('USING', case when p.polcmd <> 'a' then coalesce(pg_get_expr(p.polqual, p.polrelid), 'true') end),
           ('WITH CHECK', case when p.polcmd in ('a', 'w', '*') then pg_get_expr(p.polwithcheck, p.polrelid) end)
  ) e(kind, text)
  where p.polpermissive and e.text is not null
    and exists (
      select from unnest(p.polroles) r left join pg_roles g on g.oid = r
      where r = 0 or g.rolname in ('anon', 'authenticated'))
)
select format('%s policy %s', name, polname) as subject, format('%s is always true, or true without a tenant', kind) as detail,
       text as witness
from expressions
where bare ~ '^(true|not ?false)($|or)|or(true|notfalse)($|or)'
   or bare ~ '(^|or)''?([a-z0-9_.]+)''?=''?\2''?($|or)'
   or bare ~ '(^|or)[a-z_.]*(company_id|tenant_id|scope|key|id)is(not)?null($|or)'
   or bare ~ '(^|or)(select)?(auth\.)?(jwt|current_setting)[^=]*isnull($|or)'
   or bare ~ 'coalesce.*,true';

-- seen:
with {{tenant_tables}}
select count(*) as seen from pg_policy p join tenant_tables t on t.oid = p.polrelid;
