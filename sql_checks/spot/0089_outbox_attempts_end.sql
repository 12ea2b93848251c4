-- id: sql/spot/outbox-attempts-end
-- claim: No event has a negative number of attempts or is tried for ever: one that has failed far more often than any
--    that was given up must be given up, too.
-- cost: A poison event takes its turn again and again, holds up its key, and nobody is told that it has no effect.
-- severity: warn
-- covers: K14
with given_up as (
  -- a replayed item has one attempt
  select attempts from public.event_outbox
  where dead_at is not null and replay_run_id is null and attempts > 0
  order by dead_at desc {{at_most}}
), allowed as (
  -- the deployment's own limit, with room for one that was just raised; where nothing was given up yet, any sensible one
  select coalesce(greatest(20, 3 * max(attempts)), 100) as attempts from given_up
)
select format('outbox row %s', o.id) as subject,
       format('%s attempts, neither delivered nor given up; allowed: %s', o.attempts, allowed.attempts) as detail,
       format('event %s of %s, since %s', o.event_id, o.company_id, o.inserted_at) as witness
from public.event_outbox o
cross join allowed
where o.processed_at is null and o.dead_at is null and (o.attempts > allowed.attempts or o.attempts < 0)
  and {{not_excluded}}
union all
-- of the rows that are over, the latest
select format('outbox row %s', id), format('%s attempts', attempts), format('event %s of %s, since %s', event_id, company_id, inserted_at)
from (select * from public.event_outbox order by id desc {{at_most}}) o
where attempts < 0 and (processed_at is not null or dead_at is not null) and {{not_excluded}}
limit 1000;

-- seen:
select count(*) as seen from (select from public.event_outbox limit 1000) o;
