-- Whether this login sees any row of the table: row-level security without a policy for it shows none. No values.
select row_security_active(c.oid) and not exists (
  select from pg_policy p
  where p.polrelid = c.oid and p.polcmd in ('r', '*')
    and (0 = any (p.polroles) or exists (select from unnest(p.polroles) r (oid) where pg_has_role(r.oid, 'usage')))
) as blind
from pg_class c
where c.oid = 'public.edge_rate_limits'::regclass;
