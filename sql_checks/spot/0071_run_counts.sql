-- id: sql/spot/run-counts
-- claim: A run's counts add up: never more settled than targeted, all settled when completed; it has an end time
--    exactly when it has ended, after its start and not in the future, and a finite start.
-- cost: The run's result is wrong, and so is everything computed from it.
-- severity: page
select format('run %s', id) as subject,
       format('%s: target %s, success %s, failure %s, requested_at %s, completed_at %s', status, target_count, success_count,
              failure_count, requested_at, completed_at) as detail,
       company_id::text as witness
from (
  select *, coalesce(success_count, 0)::bigint + coalesce(failure_count, 0) as settled, coalesce(target_count, 0) as targeted
  from public.replay_runs where {{not_excluded}} order by requested_at desc {{at_most}}
) r
where success_count < 0 or failure_count < 0 or settled > targeted or status = 'completed' and settled <> targeted
   or status in ('completed', 'stopped') and completed_at is null
   or status = 'started' and completed_at is not null
   -- a clock that is set back, or an hour that comes twice in autumn, is no wrong end
   or not isfinite(requested_at) or completed_at < requested_at - interval '90 minutes' or completed_at > now() + interval '90 minutes';

-- seen:
select count(*) as seen from (select from public.replay_runs where {{not_excluded}} limit 10000) runs;
