-- id: sql/spot/budget-trigger
-- claim: Enabled triggers that can raise guard daily_used and monthly_used of replay_budgets.
-- cost: A replay can spend more than the limit.
-- severity: page
-- reads: catalogue
-- covers: G01
with {{toothed}}, used(name) as (
  values ((parse_ident('public.replay_budgets.daily_used'))[3]), ((parse_ident('public.replay_budgets.monthly_used'))[3])
)
select 'public.replay_budgets' as subject,
       format('no enabled trigger that can refuse watches UPDATE of %s', used.name) as detail,
       (select string_agg(format('%s (%s)', t.tgname, t.tgenabled), ', ') from pg_trigger t
        where t.tgrelid = to_regclass('public.replay_budgets') and not t.tgisinternal) as witness
from used
where to_regclass('public.replay_budgets') is not null
  and not exists (
    select from toothed t
    where t.tgrelid = to_regclass('public.replay_budgets') and t.tgtype::int & 16 <> 0
      and (cardinality(t.tgattr::int2[]) = 0 or exists (
        select from pg_attribute a where a.attrelid = t.tgrelid and a.attnum = any(t.tgattr::int2[]) and a.attname = used.name))
  );

-- seen:
select count(*) as seen from pg_attribute where attrelid = to_regclass('public.replay_budgets') and attnum > 0;
