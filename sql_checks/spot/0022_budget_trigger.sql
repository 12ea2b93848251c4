-- id: sql/spot/budget-trigger
-- claim: An enabled trigger guards what replay_budgets says is used.
-- cost: A replay can spend more than the limit.
-- severity: page
-- reads: catalogue
-- covers: G01
select 'public.replay_budgets' as subject,
       'no enabled trigger watches UPDATE' as detail,
       (select string_agg(format('%s (%s)', t.tgname, t.tgenabled), ', ') from pg_trigger t
        where t.tgrelid = to_regclass('public.replay_budgets') and not t.tgisinternal) as witness
where to_regclass('public.replay_budgets') is not null
  and not exists (
    select from pg_trigger t
    where t.tgrelid = to_regclass('public.replay_budgets') and not t.tgisinternal
      and t.tgenabled in ('O', 'A') and t.tgtype::int & 16 <> 0
  );

-- seen:
select count(*) as seen from pg_attribute where attrelid = to_regclass('public.replay_budgets') and attnum > 0;
