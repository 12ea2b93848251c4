-- id: sql/spot/sequences-ahead
-- claim: Every sequence that numbers audit rows, outbox rows or tasks is past the numbers in use, and does not start again; 80 % of what
--   the column holds is not used; and service and worker may use what computes the defaults of rows that they may insert.
-- cost: After a restore a sequence lags behind its table: inserts collide with used ids and fail.
-- severity: warn
-- covers: N10
with {{contract_tables}}, {{contract_parts}}, used(column_name, highest, lowest) as (
  -- as text: the ids of tasks may be UUIDs, which no sequence makes
  values ('public.audit_logs.id', (select t.id::text from public.audit_logs t order by t.id desc limit 1),
                                  (select t.id::text from public.audit_logs t order by t.id limit 1)),
         ('public.event_outbox.id', (select t.id::text from public.event_outbox t order by t.id desc limit 1),
                                    (select t.id::text from public.event_outbox t order by t.id limit 1)),
         ('public.agent_tasks.id', (select t.id::text from public.agent_tasks t order by t.id desc limit 1),
                                   (select t.id::text from public.agent_tasks t order by t.id limit 1))
), numbered as (
  select u.*, a.attrelid, a.attnum
  from used u
  join pg_attribute a on a.attrelid = to_regclass(left(u.column_name, -1 - length((parse_ident(u.column_name))[3])))
    and a.attname = (parse_ident(u.column_name))[3]
  where u.highest ~ '^-?[0-9]{1,19}$'
), fed as (
  -- owned by the column, or named in its default; one that counts down is to be below what is in use
  select distinct n.column_name, s.oid, q.*, case when q.seqincrement > 0 then n.highest else n.lowest end as last_id
  from numbered n
  left join pg_attrdef f on f.adrelid = n.attrelid and f.adnum = n.attnum
  join pg_depend d on d.classid = 'pg_class'::regclass and d.refobjid = n.attrelid and d.refobjsubid = n.attnum
                   or d.classid = 'pg_attrdef'::regclass and d.objid = f.oid
  join pg_class s on s.relkind = 'S' and s.oid = case d.classid when 'pg_class'::regclass then d.objid else d.refobjid end
  join pg_sequence q on q.seqrelid = s.oid
)
select column_name as subject,
       format('%s is at %s, and %s is in use already', oid::regclass, coalesce(last_value::text, 'its start, or restarted and not used since'), last_id) as detail,
       format('select setval(%L, %s)', oid::regclass, last_id) as witness
from fed
-- unknown where this login has no right to look; PostgreSQL 15 and 16 refuse the query
cross join lateral (select has_sequence_privilege(fed.oid, 'USAGE, SELECT') as may_look) m
cross join lateral (select case when may_look then pg_sequence_last_value(fed.oid) end as last_value) l
where may_look and sign(seqincrement) * (coalesce(last_value, seqstart - sign(seqincrement)::bigint) - last_id::numeric) < 0
union all
select column_name, format('%s starts again after %s (CYCLE)', oid::regclass, seqmax), null
from fed
where seqcycle and seqmax < 1000000000000000
union all
select fed.column_name, format('%s is unlogged: a crash of the server starts it again', fed.oid::regclass), null
from fed join pg_class s on s.oid = fed.oid and s.relpersistence = 'u'
union all
-- whoever gives the number, but for a sequence that this login may look at: sql/spot/sequence-headroom does
select n.column_name, format('%s is in use, and an %s holds %s at most', n.highest, k.type, k.most), null
from numbered n
join pg_attribute a on a.attrelid = n.attrelid and a.attnum = n.attnum
join (values ('smallint', 32767), ('integer', 2147483647), ('bigint', 9223372036854775807)) k(type, most) on k.type = format_type(a.atttypid, null)
where n.highest::numeric > 0.8 * k.most
  and not exists (select from fed where fed.column_name = n.column_name and has_sequence_privilege(fed.oid, 'USAGE, SELECT'))
union all
select format('%s.%s', a.attrelid::regclass, a.attname), format('%s may insert rows, and not use %s of their default', r.rolname, used.name), null
from parts
join pg_attrdef f on f.adrelid = parts.oid
join pg_attribute a on a.attrelid = f.adrelid and a.attnum = f.adnum and a.attgenerated = ''
join pg_roles r on r.rolname in ('replay_service', 'replay_worker') and has_any_column_privilege(r.oid, a.attrelid, 'INSERT')
join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid
cross join lateral (
  select s.oid::regclass::text as name from pg_class s
  where d.refclassid = 'pg_class'::regclass and s.oid = d.refobjid
    and case when s.relkind = 'S' then not has_sequence_privilege(r.oid, s.oid, 'USAGE, UPDATE') end
  union all
  select p.oid::regprocedure::text from pg_proc p
  where d.refclassid = 'pg_proc'::regclass and p.oid = d.refobjid and not has_function_privilege(r.oid, p.oid, 'EXECUTE')) used;

-- seen:
select (select count(*) from (select from public.audit_logs limit 100) a)
     + (select count(*) from (select from public.event_outbox limit 100) o) as seen;
