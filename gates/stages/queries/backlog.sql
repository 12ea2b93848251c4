-- Events not yet delivered and not held: tenants that are on and not paused. Grouped first, so that a flag is asked once.
select coalesce(sum(w.events), 0)::bigint as waiting
from (
  select company_id, count(*) as events
  from public.event_outbox
  where processed_at is null and dead_at is null
  group by company_id
) as w
where public.is_feature_enabled('outbox.enabled', w.company_id)
  and not exists (
    select from public.agent_controls c
    where c.agents_paused and (c.company_id is null or c.company_id = w.company_id)
  );
