-- id: sql/spot/partitions-ahead
-- claim: A partitioned table of the contract has a partition for every row: by time or number for the rows that come next, without
--    a gap between two times, by hash for all.
-- cost: From one moment to the next every insert fails.
-- severity: warn
-- reads: catalogue
-- covers: N12
with {{contract_tables}}, {{contract_parts}}, divided as (
  select c.oid::regclass::text as name, i.inhrelid::regclass::text as last_one, b.lower_at, b.upper_at,
         lead(b.lower_at) over (partition by c.oid order by b.upper_at) as next_at
  from contract
  join pg_partitioned_table t on t.partrelid = to_regclass(contract.name) and t.partstrat = 'r' and t.partnatts = 1 and t.partdefid = 0
  join pg_class c on c.oid = t.partrelid
  join pg_attribute a on a.attrelid = c.oid and a.attnum = t.partattrs[0]
    and a.atttypid in ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
  join pg_inherits i on i.inhparent = c.oid
  join pg_class p on p.oid = i.inhrelid
  cross join lateral (
    select coalesce(substring(pg_get_expr(p.relpartbound, p.oid) from 'FROM \(''([^'']+)''\)'), '-infinity')::timestamptz as lower_at,
           coalesce(substring(pg_get_expr(p.relpartbound, p.oid) from 'TO \(''([^'']+)''\)'), 'infinity')::timestamptz as upper_at) b
)
select name as subject,
       case when next_at is null then format('its last partition %s ends %s, and it has no default one', last_one, upper_at)
            else format('no partition takes rows from %s, where %s ends, to %s', upper_at, last_one, next_at) end as detail,
       null::text as witness
from divided
where case when next_at is null then
             -- the next one may be made shortly before it is needed; before PostgreSQL 17 no interval has an endless time in it
             upper_at < now() + least(case when isfinite(upper_at) then (upper_at - greatest(lower_at, '1970-01-01')) / 50 end, interval '1 day')
           -- a gap that rows reach within a year: the job that makes partitions adds one behind the last, and fills no gap
           else next_at > upper_at and next_at > now() and upper_at < now() + interval '1 year' end
union all
select t.partrelid::regclass::text, format('%s of its rows have no partition', to_char(100 * (1 - p.covered), 'FM990.0 %')), null
from parts
join pg_partitioned_table t on t.partrelid = parts.oid and t.partstrat = 'h'
cross join lateral (
  select coalesce(sum(1.0 / substring(pg_get_expr(c.relpartbound, c.oid) from 'modulus (\d+)')::int), 0) as covered
  from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = t.partrelid) p
where p.covered < 0.999999
union all
select t.partrelid::regclass::text, format('its last partition ends at %s, %s is at %s, and it has no default one', b.upper_no, s.oid::regclass, q.last_no), null
from contract
join pg_partitioned_table t on t.partrelid = to_regclass(contract.name) and t.partstrat = 'r' and t.partnatts = 1 and t.partdefid = 0
-- owned by the column, or named in its default
left join pg_attrdef f on f.adrelid = t.partrelid and f.adnum = t.partattrs[0]
join pg_depend d on d.classid = 'pg_class'::regclass and d.refobjid = t.partrelid and d.refobjsubid = t.partattrs[0]
                 or d.classid = 'pg_attrdef'::regclass and d.objid = f.oid
join pg_class s on s.relkind = 'S' and s.oid = case d.classid when 'pg_class'::regclass then d.objid else d.refobjid end
cross join lateral (
  select case when has_sequence_privilege(s.oid, 'USAGE, SELECT') then pg_sequence_last_value(s.oid) end as last_no) q
cross join lateral (
  select max(coalesce(substring(bound from 'TO \(''?(-?\d+)''?\)')::numeric, 'infinity')) as upper_no,
         max(substring(bound from 'FROM \(''?(-?\d+)''?\)')::numeric) as lower_no
  from pg_inherits i join pg_class c on c.oid = i.inhrelid
  cross join lateral (select pg_get_expr(c.relpartbound, c.oid) as bound) e
  where i.inhparent = t.partrelid) b
-- the next one may be made shortly before it is needed
where q.last_no > b.upper_no - least((b.upper_no - coalesce(b.lower_no, 0)) / 50, 10000);

-- seen:
with {{contract_tables}}
select count(*) as seen from pg_class c join contract on c.oid = to_regclass(contract.name);
