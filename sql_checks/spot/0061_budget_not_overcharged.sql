-- id: sql/spot/budget-not-overcharged
-- claim: No tenant is charged more today than items were moved.
-- cost: A tenant is refused replays that it paid for.
-- severity: warn
-- covers: G03 G07
with moved as (
  select company_id, sum(case when status = 'stopped' then success_count + failure_count else target_count end) as items
  from public.replay_runs
  where requested_at >= (date_trunc('day', now() at time zone 'UTC') - interval '1 minute') at time zone 'UTC'
    and {{not_excluded}}
  group by company_id
)
select b.company_id::text as subject,
       format('%s charged today, %s items moved', b.daily_used, coalesce(m.items, 0)) as detail,
       null::text as witness
from public.replay_budgets b
left join moved m using (company_id)
where b.day = (now() at time zone 'UTC')::date and b.daily_used > coalesce(m.items, 0)
  and b.company_id not in (select unnest(coalesce(nullif(current_setting('replaygate.excluded', true), ''), '{}')::uuid[]));

-- seen:
select (select count(*) from (select from public.replay_runs limit 100) r)
     + (select count(*) from (select from public.replay_budgets limit 100) b) as seen;
