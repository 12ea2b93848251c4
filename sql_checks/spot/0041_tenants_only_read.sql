-- id: sql/spot/tenants-only-read
-- claim: Tenants hold no right but SELECT on the contract's tables, and cannot create in the schema, in that of a function which its policies
--   ask, or in the database, nor databases or roles; service and worker hold neither TRUNCATE nor REFERENCES nor TRIGGER.
-- cost: Then one missing WITH CHECK lets a tenant write into the queue.
-- severity: warn
-- reads: catalogue
-- covers: J24
with {{contract_tables}}, {{contract_parts}}
select t.oid::regclass::text as subject, format('%s holds %s', r.rolname, p) as detail, t.relacl::text as witness
from pg_class t
join parts on parts.oid = t.oid
join pg_roles r on r.rolname in ('replay_service', 'replay_worker', 'authenticated') and not r.rolsuper
cross join unnest(case r.rolname when 'authenticated' then array['INSERT', 'UPDATE', 'DELETE', 'REFERENCES', 'TRIGGER', 'SELECT WITH GRANT OPTION']
                                   || case when current_setting('server_version_num')::int >= 170000 then array['MAINTAIN'] end
                                 else array['TRUNCATE', 'REFERENCES', 'TRIGGER'] end) p
-- a right on a single column counts
where case when p ~ '^(INSERT|UPDATE|REFERENCES|SELECT)' then has_any_column_privilege(r.oid, t.oid, p)
           else has_table_privilege(r.oid, t.oid, p) end
union all
select format('schema %s', n.nspname), format('%s holds CREATE', r.rolname), n.nspacl::text
from pg_namespace n
join pg_roles r on r.rolname = 'authenticated' and not r.rolsuper and has_schema_privilege(r.oid, n.oid, 'CREATE')
where n.nspname = any('{public}')
   or n.oid in (select f.pronamespace from pg_policy p
                join parts on parts.oid = p.polrelid
                join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = p.oid and d.refclassid = 'pg_proc'::regclass
                join pg_proc f on f.oid = d.refobjid)
union all
select format('database %s', d.datname), format('%s holds CREATE', r.rolname), d.datacl::text
from pg_database d
join pg_roles r on r.rolname = 'authenticated' and not r.rolsuper and has_database_privilege(r.oid, d.oid, 'CREATE')
where d.datname = current_database()
union all
select 'the server', format('%s may create databases or roles', r.rolname), null
from pg_roles r where r.rolname = 'authenticated' and (r.rolcreatedb or r.rolcreaterole) and not r.rolsuper;

-- seen:
with {{contract_tables}}, {{contract_parts}}
select count(*) as seen from parts join pg_roles r on r.rolname in ('replay_service', 'replay_worker', 'authenticated') where parts.oid is not null;
