-- id: sql/spot/audit-append-only
-- claim: Enabled triggers that can raise refuse UPDATE, DELETE and TRUNCATE on audit_logs, and UPDATE and DELETE on each of its partitions and children.
-- cost: Whoever did harm can remove the proof of it.
-- severity: page
-- reads: catalogue
-- covers: I07 I09
with recursive events(bit, name) as (values (16, 'UPDATE'), (8, 'DELETE'), (32, 'TRUNCATE')), {{toothed}}, trail as (
  -- a statement that names a partition runs no statement's trigger of the whole. Who may truncate one may drop it
  select to_regclass('public.audit_logs')::oid as oid, false as is_part
  union
  select i.inhrelid, true from trail join pg_inherits i on i.inhparent = trail.oid
)
select r.oid::regclass::text as subject,
       format('no enabled trigger that can refuse watches %s', e.name) as detail,
       (select string_agg(format('%s (%s)', t.tgname, t.tgenabled), ', ') from pg_trigger t
        where t.tgrelid = r.oid and not t.tgisinternal) as witness
from events e, trail r
where r.oid is not null and not (r.is_part and (e.name = 'TRUNCATE' or r.oid in (select partrelid from pg_partitioned_table)))
  and not exists (
    select from toothed t
    where t.tgrelid = r.oid and t.tgtype::int & e.bit <> 0
      -- a trigger with a condition, or on some columns only, lets the rest through
      and t.tgqual is null and cardinality(t.tgattr::int2[]) = 0
  );

-- seen:
select count(*) as seen from pg_attribute where attrelid = to_regclass('public.audit_logs') and attnum > 0;
