-- id: sql/spot/constraints-validated
-- claim: Every constraint is validated.
-- cost: Old rows break a rule that everybody relies on.
-- severity: warn
-- reads: catalogue
-- covers: N03
select c.conrelid::regclass::text as subject,
       format('constraint %s is not validated', c.conname) as detail,
       pg_get_constraintdef(c.oid) as witness
from pg_constraint c
join pg_namespace n on n.oid = c.connamespace
where not c.convalidated and n.nspname !~ '^pg_' and n.nspname <> 'information_schema';

-- seen:
select count(*) as seen from pg_constraint where connamespace in (select oid from pg_namespace where nspname = any('{public}'));
