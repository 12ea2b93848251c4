-- id: sql/spot/claims-within-lease
-- claim: No event stays claimed beyond its lease, and no lease is longer than a day.
-- cost: A worker that died keeps its events for ever.
-- severity: page
-- covers: K05
select format('outbox row %s', id) as subject,
       case when claimed_until > now() then format('claimed until %s: more than a day ahead', claimed_until)
            else format('its lease ended %s, it is due since %s, and nobody took it', claimed_until, next_attempt_at) end as detail,
       format('event %s of %s', event_id, company_id) as witness
from public.event_outbox o
cross join (
  -- behind a backlog, an event waits for its turn like all others
  select case when count(*) > 1000 then interval '1 hour' else interval '5 minutes' end as patience
  from (select from public.event_outbox where processed_at is null and dead_at is null limit 1001) waiting
) p
where processed_at is null and dead_at is null and claimed_until is not null and {{not_excluded}}
  and (claimed_until > now() + interval '1 day'
    or greatest(claimed_until, next_attempt_at) < now() - p.patience
       and public.is_feature_enabled('outbox.enabled', o.company_id)
       and not exists (select from public.agent_controls a
                       where a.agents_paused and (a.company_id is null or a.company_id = o.company_id))
       and not exists (select from public.event_outbox earlier
                       where earlier.processed_at is null and earlier.dead_at is null and earlier.company_id = o.company_id
                         and earlier.aggregate_key = o.aggregate_key and earlier.id < o.id))
limit 1000;

-- seen:
select count(*) as seen from (select from public.event_outbox limit 1000) o;
