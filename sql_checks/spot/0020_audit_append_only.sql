-- id: sql/spot/audit-append-only
-- claim: Enabled triggers that can raise refuse UPDATE, DELETE and TRUNCATE on audit_logs.
-- cost: Whoever did it can remove the proof.
-- severity: page
-- reads: catalogue
-- covers: I07 I09
with events(bit, name) as (values (16, 'UPDATE'), (8, 'DELETE'), (32, 'TRUNCATE')), {{toothed}}
select 'public.audit_logs' as subject,
       format('no enabled trigger that can refuse watches %s', e.name) as detail,
       (select string_agg(format('%s (%s)', t.tgname, t.tgenabled), ', ') from pg_trigger t
        where t.tgrelid = to_regclass('public.audit_logs') and not t.tgisinternal) as witness
from events e
where to_regclass('public.audit_logs') is not null
  and not exists (
    select from toothed t
    where t.tgrelid = to_regclass('public.audit_logs') and t.tgtype::int & e.bit <> 0
      -- a trigger with a condition, or on some columns only, lets the rest through
      and t.tgqual is null and cardinality(t.tgattr::int2[]) = 0
  );

-- seen:
select count(*) as seen from pg_attribute where attrelid = to_regclass('public.audit_logs') and attnum > 0;
