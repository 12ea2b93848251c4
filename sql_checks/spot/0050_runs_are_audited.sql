-- id: sql/spot/runs-are-audited
-- claim: Every replay run of the last day has its dlq_replay_started row, written in the run's own transaction.
-- cost: Nobody can say who started it.
-- severity: page
-- covers: I01 I03
with runs as (
  select id, company_id, txid, requested_at
  from public.replay_runs
  where requested_at > now() - interval '1 day' and {{not_excluded}}
  order by requested_at desc {{at_most}}
), trail as (
  select scope, txid, count(*) as rows
  from public.audit_logs
  where created_at > now() - interval '25 hours' and action = 'dlq_replay_started'
  group by scope, txid
), counted as (
  select company_id, txid, count(*) as runs, min(id::text) as run, max(requested_at) - min(requested_at) as lasted from runs group by company_id, txid
), lacking as materialized (
  select c.*, coalesce(t.rows, 0) as told
  from counted c
  left join trail t on t.scope = c.company_id::text and t.txid = c.txid
  where coalesce(t.rows, 0) < c.runs
    -- no transaction lasts so long: a migration filled the column, and the trail's in another transaction
    and not (c.lasted > interval '1 hour' and coalesce((select sum(a.rows) from trail a where a.scope = c.company_id::text), 0) >= c.runs)
), orphans as materialized (
  select merged.txid
  from trail merged
  left join public.companies k on k.id::text = merged.scope
  where k.id is null and merged.scope <> 'all' and exists (select from lacking)
)
select format('run %s', c.run) as subject,
       format('%s runs of %s in transaction %s, but %s audit rows', c.runs, c.company_id, c.txid, c.told) as detail,
       c.company_id::text as witness
from lacking c
-- a tenant that was merged into another took its runs along; its trail stays as it is
where not exists (select from orphans where orphans.txid = c.txid and exists (select from public.companies into_it where into_it.id = c.company_id))
  and {{trail_has_replays}};

-- seen:
select count(*) as seen from (
  select from public.replay_runs where requested_at > now() - interval '1 day' and {{not_excluded}}
  and {{trail_has_replays}}
  limit 10000
) runs;
