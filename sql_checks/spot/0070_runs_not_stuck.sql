-- id: sql/spot/runs-not-stuck
-- claim: No run is `started` for a quarter of an hour with nothing left to do.
-- cost: Its items stay `replaying` for ever; nobody can replay them again.
-- severity: page
select format('run %s', r.id) as subject,
       format('started %s, %s of %s items settled, nothing of it is waiting', r.requested_at, r.success_count::bigint + r.failure_count,
              r.target_count) as detail,
       r.company_id::text as witness
from public.replay_runs r
where r.status = 'started' and r.requested_at < now() - interval '15 minutes' and {{not_excluded}}
  and not exists (
    select from public.event_outbox o where o.replay_run_id = r.id and o.processed_at is null and o.dead_at is null);

-- seen:
select count(*) as seen from (select from public.replay_runs limit 1000) runs;
