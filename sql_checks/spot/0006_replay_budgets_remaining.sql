-- id: sql/spot/replay-budgets-remaining
-- claim: replay_budgets_status shows every budget, with its status and what is left of the day and of the month; what a past period used counts as nothing,
--   and none is of a day or month to come.
-- cost: An operator reads there that nothing is left, and waits or raises a limit for nothing.
-- severity: warn
-- covers: G08
with budgets as (
  select company_id, daily_limit, monthly_limit, day, month,
         day > (now() at time zone 'UTC')::date + 1
           or left(to_jsonb(month) #>> '{}', 7) > to_char((now() at time zone 'UTC') + interval '1 day', 'YYYY-MM') as is_to_come,
         case when day = (now() at time zone 'UTC')::date then daily_used else 0 end as used_today,
         case when left(to_jsonb(month) #>> '{}', 7) = to_char(now() at time zone 'UTC', 'YYYY-MM') then monthly_used else 0 end as used_this_month
  from public.replay_budgets
  order by day desc {{at_most}}
), shown as (
  select b.*, to_jsonb(v) as row, (parse_ident('public.replay_budgets_status.status'))[3] as status,
         -- a limit is no amount that is left
         to_jsonb(v) - (parse_ident('public.replay_budgets.daily_limit'))[3] - (parse_ident('public.replay_budgets.monthly_limit'))[3] as amounts
  from budgets b left join public.replay_budgets_status v on v.company_id = b.company_id
)
select company_id::text as subject,
       case when row is null then 'the view does not show it'
            when not row ? status then format('the view shows no %s', status)
            when is_to_come then format('is of %s and %s: until then nothing used is forgotten', day, month)
            else format('%s of %s a day and %s of %s a month are used; the view shows %s', used_today, daily_limit, used_this_month,
                        monthly_limit, row) end as detail,
       row::text as witness
from shown
-- how the remaining amounts are called is not promised, and neither is whether an overdrawn one is shown as 0
where row is null
   or not row ? status
   -- in the zones of the east it is tomorrow
   or is_to_come
   or not exists (select from jsonb_each_text(amounts) r
                  where r.value in ((daily_limit - used_today)::text, greatest(daily_limit - used_today, 0)::text))
   or not exists (select from jsonb_each_text(amounts) r
                  where r.value in ((monthly_limit - used_this_month)::text, greatest(monthly_limit - used_this_month, 0)::text))
limit 1000;

-- seen:
select count(*) as seen from (select from public.replay_budgets limit 1000) b;
