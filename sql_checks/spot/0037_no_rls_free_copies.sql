-- id: sql/spot/no-rls-free-copies
-- claim: No materialised view or foreign table that tenants can read holds tenant data.
-- cost: Row-level security does not exist there: everybody reads everything.
-- severity: page
-- reads: catalogue
-- covers: J16
with {{contract_tables}}
select c.oid::regclass::text as subject,
       format('%s is readable by %s', case c.relkind when 'm' then 'materialised view' else 'foreign table' end, r.rolname) as detail,
       c.relacl::text as witness
from pg_class c
join pg_roles r on r.rolname in ('anon', 'authenticated')
where c.relkind in ('m', 'f')
  and has_schema_privilege(r.oid, c.relnamespace, 'USAGE')
  -- a right on one column is one
  and exists (select from pg_attribute a where a.attrelid = c.oid and (a.attname in ('company_id', 'tenant_id', 'scope', 'payload')
                -- or an id, of a row for each company that it was made from
                or exists (
                  select from contract t
                  join pg_attribute k on k.attrelid = to_regclass(t.name) and k.attname = (parse_ident(t.tenant))[3]
                  join pg_depend d on d.refobjid = k.attrelid and d.refobjsubid = k.attnum and d.classid = 'pg_rewrite'::regclass
                  join pg_rewrite w on w.oid = d.objid and w.ev_class = c.oid
                  where t.name <> 'public.companies' and (a.atttypid = 'uuid'::regtype
                    or pg_get_viewdef(c.oid) ~ format('\m%s\)*::(text|character varying) AS "?%s\M', k.attname, a.attname)))
                -- or a text that was made of a payload or a message, row by row
                or pg_get_viewdef(c.oid) !~* '\mgroup by\M' and format_type(a.atttypid, null) ~ '^(text|json|xml|bytea|character)' and exists (
                  select from pg_rewrite w
                  join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
                  join unnest(array['public.events.payload', 'public.event_outbox.payload', 'public.dead_letter_queue.payload',
                                    'public.dead_letter_queue.error_message', 'public.audit_logs.metadata']) p(name) on true
                  cross join lateral parse_ident(p.name) i(words)
                  join pg_attribute k on k.attrelid = to_regclass(quote_ident(words[1]) || '.' || quote_ident(words[2])) and k.attname = words[3]
                  where w.ev_class = c.oid and d.refobjid = k.attrelid and d.refobjsubid = k.attnum)
                -- or whatever of a table that elsewhere has the name of one of ours
                or exists (select from pg_foreign_table t, pg_options_to_table(t.ftoptions) o, contract
                           where t.ftrelid = c.oid and o.option_name in ('table_name', 'table') and contract.tenant is not null
                             and (parse_ident(contract.name))[2] = o.option_value))
              and has_column_privilege(r.oid, c.oid, a.attnum, 'SELECT'));

-- seen:
select count(*) as seen from pg_roles where rolname in ('anon', 'authenticated');
