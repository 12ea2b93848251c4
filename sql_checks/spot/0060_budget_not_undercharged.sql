-- id: sql/spot/budget-not-undercharged
-- claim: Every item moved today is charged to its tenant's budget, of the day and of the month.
-- cost: Tenants replay more than they agreed to, and nothing stops them.
-- severity: warn
-- covers: G07
with moved as (
  -- no page: an operator may have given a budget back by hand. What the release itself charges is drilled (drill/budgets);
  -- a stopped run was refunded what it did not attempt; the first minute of the day may belong to the day before
  select company_id,
         sum(case when status in ('stopped', 'failed') then success_count::bigint + failure_count else target_count end) as items,
         min(id::text) as run
  from public.replay_runs
  where requested_at >= (date_trunc('day', now() at time zone 'UTC') + interval '1 minute') at time zone 'UTC'
    and target_count > 0 and {{not_excluded}}
  group by company_id
)
select m.company_id::text as subject,
       format('%s items moved today, %s charged', m.items, coalesce(b.daily_used::text, 'no budget row: nothing')) as detail,
       format('run %s', m.run) as witness
from moved m
left join public.replay_budgets b
  on b.company_id = m.company_id and b.day = (now() at time zone 'UTC')::date
where coalesce(b.daily_used, 0) < m.items
  and public.is_feature_enabled('dlq.replay.budget_control', m.company_id)
  -- what was moved while the control was off is not charged
  and not exists (
    select from public.feature_flags f
    where f.key = 'dlq.replay.budget_control' and (f.company_id is null or f.company_id = m.company_id)
      and f.updated_at >= date_trunc('day', now() at time zone 'UTC') at time zone 'UTC')
union all
select company_id::text, format('%s charged today, and %s in the month %s', daily_used, monthly_used, left(to_jsonb(month) #>> '{}', 7)), null
from public.replay_budgets
where day = (now() at time zone 'UTC')::date
  and case left(to_jsonb(month) #>> '{}', 7) when to_char(now() at time zone 'UTC', 'YYYY-MM') then monthly_used else 0 end < daily_used
  and {{not_excluded}};

-- seen:
select (select count(*) from (select from public.replay_runs limit 100) r)
     + (select count(*) from (select from public.replay_budgets limit 100) b) as seen;
