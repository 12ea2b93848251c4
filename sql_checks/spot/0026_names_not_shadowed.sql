-- id: sql/spot/names-not-shadowed
-- claim: In sessions of service, worker and operator no schema before the contract's, or the server's, has a table, function or operator of the same name, or lets a tenant create one; and a question for a flag has one function.
-- cost: The statements of an emergency, and a service that names no schema, write where nobody looks.
-- severity: warn
-- reads: catalogue
-- covers: N04
with {{contract_tables}}, objects as (
  select c.oid, c.relname as name, c.relnamespace as schema from contract join pg_class c on c.oid = to_regclass(contract.name)
), functions as (
  select distinct p.proname as name, p.pronamespace as schema
  from pg_proc p join pg_namespace n on n.oid = p.pronamespace
  where format('%I.%I', n.nspname, p.proname) = 'public.is_feature_enabled'
), paths as (
  -- the setting that counts: of the role in this database, else of the role, else of the database
  select distinct on (r.oid) r.oid, r.rolname, substr(c.text, strpos(c.text, '=') + 1) as path
  from pg_roles r
  left join pg_db_role_setting s on s.setrole in (r.oid, 0)
    and s.setdatabase in ((select oid from pg_database where datname = current_database()), 0)
  left join lateral unnest(s.setconfig) c(text) on c.text like 'search\_path=%'
  where r.rolname in ('replay_service', 'replay_worker', session_user)
  order by r.oid, c.text is null, s.setrole = 0, s.setdatabase = 0
), schemas as (
  select p.oid as role, p.rolname, n.oid, n.nspname, e.place
  from paths p
  cross join regexp_split_to_table(coalesce(p.path, '"$user", public'), '\s*,\s*') with ordinality e(entry, place)
  -- what a session may not use, it does not look into
  join pg_namespace n on n.nspname = replace(trim(both '"' from e.entry), '$user', p.rolname) and has_schema_privilege(p.oid, n.oid, 'USAGE')
)
select format('sessions of %s', string_agg(distinct s.rolname, ', ')) as subject,
       format('%s is found before %s', c.oid::regclass, format('%I.%I', o.schema::regnamespace, o.name)) as detail,
       null::text as witness
from objects o
join schemas own on own.oid = o.schema
join schemas s on s.role = own.role and s.place < own.place
join pg_class c on c.relnamespace = s.oid and c.relname = o.name and c.relkind in ('r', 'p', 'f', 'm', 'v')
-- a view of the same rows shows no others
where not exists (
  select from pg_rewrite w join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
  where w.ev_class = c.oid and c.relkind = 'v' and d.refclassid = 'pg_class'::regclass and d.refobjid = o.oid)
group by c.oid, o.schema, o.name
union all
select format('sessions of %s', string_agg(distinct s.rolname, ', ')),
       format('%s is found before that of %s', p.oid::regprocedure, f.schema::regnamespace), null
from functions f
join schemas own on own.oid = f.schema
join schemas s on s.role = own.role and s.place < own.place
join pg_proc p on p.pronamespace = s.oid and p.proname = f.name and p.pronargs = 2
group by p.oid, f.schema
union all
-- with its defaults it takes the same arguments: the server refuses to choose
select p.oid::regprocedure::text, format('takes what %s does: a call of either is refused', o.oid::regprocedure), p.prosrc
from functions f
join pg_proc o on o.pronamespace = f.schema and o.proname = f.name and o.pronargs = 2 and o.provariadic = 0
join pg_proc p on p.pronamespace = f.schema and p.proname = f.name and p.pronargs > 2 and p.pronargs - p.pronargdefaults <= 2
where p.proargtypes[0] = o.proargtypes[0] and p.proargtypes[1] = o.proargtypes[1]
union all
select format('sessions of %s', string_agg(distinct s.rolname, ', ')),
       format('%s comes before pg_catalog, and has %s', s.nspname, b.name), null
from schemas s
join schemas own on own.role = s.role and own.oid = 'pg_catalog'::regnamespace and s.place < own.place
join lateral (
  select min(p.oid::regprocedure::text) as name from pg_proc p
  where p.pronamespace = s.oid and exists (
    select from pg_proc o where o.pronamespace = own.oid and o.proname = p.proname and o.proargtypes = p.proargtypes)
  union all
  select min(p.oid::regoperator::text) from pg_operator p
  where p.oprnamespace = s.oid and exists (
    select from pg_operator o where o.oprnamespace = own.oid and (o.oprname, o.oprleft, o.oprright) = (p.oprname, p.oprleft, p.oprright))
) b on b.name is not null
group by s.nspname, b.name
union all
select format('sessions of %s', string_agg(distinct s.rolname, ', ')),
       format('schema %s, in which tenants may create, comes before %s', s.nspname, own.nspname), null
from schemas s
join schemas own on own.role = s.role and own.place > s.place and own.oid in (select schema from objects)
where exists (select from pg_roles r where r.rolname in ('anon', 'authenticated') and not r.rolsuper and has_schema_privilege(r.oid, s.oid, 'CREATE'))
group by s.nspname, own.nspname;

-- seen:
with {{contract_tables}}
select count(*) as seen from pg_class c join contract on c.oid = to_regclass(contract.name);
