-- id: sql/spot/sequence-headroom
-- claim: No sequence of the deployment's schemas, or that numbers their rows, has used 80 % of what its column can hold, and none that gives ids begins anew at its end.
-- cost: Inserts fail from one moment to the next.
-- severity: warn
-- reads: catalogue
-- covers: N12
with used as (
  select format('%I.%I', s.schemaname, s.sequencename) as name,
         coalesce(s.last_value, 0) as last_value,
         least(s.max_value, case a.atttypid when 'int2'::regtype then 32767 when 'int4'::regtype then 2147483647 else s.max_value end) as limit_value
  from pg_sequences s
  join pg_namespace p on p.nspname = s.schemaname
  join pg_class c on c.relnamespace = p.oid and c.relname = s.sequencename
  -- owned by the column, or named in its default
  left join pg_depend d on d.objid = c.oid and d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
    and d.refobjsubid > 0 and d.deptype in ('a', 'i')
  left join pg_depend n on n.refobjid = c.oid and n.classid = 'pg_attrdef'::regclass and n.refclassid = 'pg_class'::regclass
  left join pg_attrdef f on f.oid = n.objid
  left join pg_attribute a on a.attrelid = coalesce(f.adrelid, d.refobjid) and a.attnum = coalesce(f.adnum, d.refobjsubid)
  where s.schemaname = any('{public}')
     or (select t.relnamespace from pg_class t where t.oid = a.attrelid) in (select oid from pg_namespace where nspname = any('{public}'))
)
select name as subject,
       format('%s of %s used (%s %%), 80 %% allowed', last_value, limit_value, round(100.0 * last_value / limit_value)) as detail,
       null::text as witness
from used
where last_value > 0.8 * limit_value
union all
select format('%I.%I', schemaname, sequencename), 'begins anew at its end (CYCLE): ids are given twice', null
from pg_sequences where cycle and schemaname = any('{public}');

-- seen:
select count(*) as seen from pg_sequences where schemaname = any('{public}');
