-- id: sql/spot/constraints-validated
-- claim: Every constraint of the contract's tables is validated, and the key of the budgets is no deferrable one.
-- cost: Old rows break a rule that everybody relies on.
-- severity: warn
-- reads: catalogue
-- covers: N03
with {{contract_tables}}, {{contract_parts}}
select c.conrelid::regclass::text as subject,
       format('constraint %s is not validated', c.conname) as detail,
       pg_get_constraintdef(c.oid) as witness
from pg_constraint c
where not c.convalidated and c.conrelid in (select oid from parts)
union all
select c.conrelid::regclass::text, format('constraint %s is deferrable: the checklist''s ON CONFLICT is refused', c.conname), pg_get_constraintdef(c.oid)
from pg_constraint c
where c.conrelid = to_regclass('public.replay_budgets') and c.contype in ('p', 'u') and c.condeferrable
  and pg_get_constraintdef(c.oid) ~ format('\(%s\)', (parse_ident('public.replay_budgets.company_id'))[3]);

-- seen:
select count(*) as seen from pg_constraint where connamespace in (select oid from pg_namespace where nspname = any('{public}'));
