-- id: sql/spot/budget-not-overcharged
-- claim: No tenant is charged more today than items were moved.
-- cost: A tenant is refused replays that it paid for.
-- severity: warn
-- covers: G03 G07
with moved as (
  select company_id, count(*) as runs, sum(case when status = 'stopped' then success_count::bigint + failure_count else target_count end) as items
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
  -- runs may have been cleared away; the trail never is
  and not exists (
    select from public.audit_logs a
    where a.scope = b.company_id::text and a.action = 'dlq_replay_started'
      and a.created_at >= (date_trunc('day', now() at time zone 'UTC') - interval '1 minute') at time zone 'UTC'
    having count(*) > coalesce(m.runs, 0) and sum(a.target_count) >= b.daily_used)
  and b.company_id not in (select unnest(coalesce(nullif(current_setting('replaygate.excluded', true), ''), '{}')::uuid[]));

-- seen:
select (select count(*) from (select from public.replay_runs limit 100) r)
     + (select count(*) from (select from public.replay_budgets limit 100) b) as seen;
