-- Whether this login sees every row of the flags, and of the companies: both are tables (a view may leave rows out), and
-- row-level security does not bind the login, or shows it all rows.
with mine as (
  select p.polrelid, p.polpermissive, pg_get_expr(p.polqual, p.polrelid) as qual
  from pg_catalog.pg_policy p
  where p.polcmd in ('r', '*')
    and exists (
      select from unnest(p.polroles) as r (oid)
      where r.oid = 0 or pg_has_role(current_user, r.oid, 'usage')
    )
), whole as (
  select c.oid
  from pg_catalog.pg_class c
  where c.oid in (to_regclass('public.feature_flags'), to_regclass('public.companies')) and c.relkind in ('r', 'p')
    and (not row_security_active(c.oid)
         or exists (select from mine m where m.polrelid = c.oid and m.polpermissive and m.qual in ('true', '(true)'))
            and not exists (select from mine m where m.polrelid = c.oid and not m.polpermissive))
)
select exists (select from whole w where w.oid = to_regclass('public.feature_flags')) as flags,
       exists (select from whole w where w.oid = to_regclass('public.companies')) as companies;
