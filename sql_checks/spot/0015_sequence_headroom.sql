-- id: sql/spot/sequence-headroom
-- claim: No sequence of the deployment's schemas, or that numbers their rows, has used 80 % of what its column can hold, and none that gives ids begins anew at its end.
-- cost: Inserts fail from one moment to the next.
-- severity: warn
-- reads: catalogue
-- covers: N12
with used as (
  select format('%I.%I', s.schemaname, s.sequencename) as name, s.cycle, s.last_value, limit_value,
         -- one that counts down, or begins below zero, has used what lies behind it
         case when s.increment_by > 0 then least(s.start_value, 0) else greatest(s.start_value, 0) end::numeric as first_value,
         exists (select from pg_index i where i.indrelid = a.attrelid and i.indisunique and a.attnum = any(i.indkey)) as gives_ids
  from pg_sequences s
  join pg_namespace p on p.nspname = s.schemaname
  join pg_class c on c.relnamespace = p.oid and c.relname = s.sequencename
  -- owned by the column, or named in its default
  left join pg_depend d on d.objid = c.oid and d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
    and d.refobjsubid > 0 and d.deptype in ('a', 'i')
  left join pg_depend n on n.refobjid = c.oid and n.classid = 'pg_attrdef'::regclass and n.refclassid = 'pg_class'::regclass
  left join pg_attrdef f on f.oid = n.objid
  left join pg_attribute a on a.attrelid = coalesce(f.adrelid, d.refobjid) and a.attnum = coalesce(f.adnum, d.refobjsubid)
  cross join lateral (select case a.atttypid when 'int2'::regtype then 32767 when 'int4'::regtype then 2147483647
                                  else 9223372036854775807 end as most) m
  cross join lateral (select case when s.increment_by > 0 then least(s.max_value, most) else greatest(s.min_value, -most) end as limit_value) l
  where s.schemaname = any('{public}')
     or (select t.relnamespace from pg_class t where t.oid = a.attrelid) in (select oid from pg_namespace where nspname = any('{public}'))
)
select name as subject,
       case when cycle then 'begins anew at its end (CYCLE): ids are given twice'
            else format('%s of %s used (%s %%), 80 %% allowed', last_value, limit_value, round(100 * share)) end as detail,
       null::text as witness
from used
cross join lateral (select (last_value - first_value) / nullif(limit_value - first_value, 0) as share) u
-- a turn that goes round, as of shards, is no id
where case when cycle then gives_ids else share > 0.8 end;

-- seen:
select count(*) as seen from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = any('{public}') and c.relkind in ('S', 'r', 'p');
