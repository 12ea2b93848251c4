-- The tables and views of one schema: their columns, and whether this login may read them and sees all rows.
select c.relname::text as name,
       (select coalesce(array_agg(a.attname::text), '{}') from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns,
       has_schema_privilege(n.oid, 'USAGE') and has_any_column_privilege(c.oid, 'SELECT') as readable,
       case when c.relkind = 'v' then exists (
                   select from unnest(c.reloptions) as o (said)
                   where case when o.said like 'security_invoker=%%' then split_part(o.said, '=', 2)::boolean end)
                 and not (select rolsuper or rolbypassrls from pg_roles where rolname = current_user)
            else row_security_active(c.oid)
                 and not exists (
                   select from pg_policy p
                   where p.polrelid = c.oid and p.polpermissive and p.polcmd in ('r', '*')
                     and pg_get_expr(p.polqual, p.polrelid) in ('true', '(true)')
                     and exists (select from unnest(p.polroles) r where r = 0 or pg_has_role(r, 'USAGE'))) end
       or exists (
         select from pg_policy p
         where row_security_active(c.oid) and p.polrelid = c.oid and not p.polpermissive and p.polcmd in ('r', '*')
           and exists (select from unnest(p.polroles) r where r = 0 or pg_has_role(r, 'USAGE'))) as blind
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(schema)s and c.relkind in ('r', 'p', 'v', 'm', 'f')
