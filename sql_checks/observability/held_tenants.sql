-- Tenants whose events are held, because they are switched off or paused.
select t.company_id, t.held, public.is_feature_enabled('outbox.enabled', t.company_id) as outbox_enabled,
       exists (select from public.agent_controls a
               where a.agents_paused and (a.company_id is null or a.company_id = t.company_id)) as paused
from (select company_id, count(*) as held from public.event_outbox
      where processed_at is null and dead_at is null group by company_id) t
where not public.is_feature_enabled('outbox.enabled', t.company_id)
   or exists (select from public.agent_controls a
              where a.agents_paused and (a.company_id is null or a.company_id = t.company_id))
order by t.held desc limit 50;
