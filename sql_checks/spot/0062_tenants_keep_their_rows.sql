-- id: sql/spot/tenants-keep-their-rows
-- claim: The outbox rows, tasks and dead letters of an event belong to its tenant, and the outbox rows of a run to the run's.
-- cost: One tenant sees, replays and pays for another tenant's events.
-- severity: page
-- covers: J26
with made as materialized (
  (select 'outbox row' as what, id::text as row_id, event_id, company_id, replay_run_id from public.event_outbox
   where ({{not_excluded}} or company_id is null) order by id desc {{at_most}})
  union all
  (select 'task', id::text, event_id, company_id, null from public.agent_tasks
   where created_at > now() - interval '1 day' and event_id is not null and ({{not_excluded}} or company_id is null)
   order by created_at desc {{at_most}})
  union all
  (select 'dead letter', id::text, event_id, company_id, null from public.dead_letter_queue
   where created_at > now() - interval '1 day' and event_id is not null and ({{not_excluded}} or company_id is null)
   order by created_at desc {{at_most}})
), told as materialized (
  -- looked up one by one: as joins they would be hashed, and the whole tables read. Ids may be unique within a tenant
  -- only: then the row's own tenant comes first
  select m.*,
         (select e.company_id from public.events e where e.id = m.event_id
          order by e.company_id = m.company_id desc limit 1) as of_event,
         (select r.company_id from public.replay_runs r where r.id = m.replay_run_id
          order by r.company_id = m.company_id desc limit 1) as of_run
  from made m
), owned as (
  -- what other producers sent has no row in events: then the outbox says whose a task is, unless they gave it to several
  -- tenants under one id
  select t.*,
         case when t.of_event is null and t.what = 'task' and not coalesce((
           select true from public.dead_letter_queue d where d.event_id = t.event_id and d.company_id = t.company_id limit 1
         ), false) then
           (select o.company_id from public.event_outbox o where o.event_id = t.event_id
            order by o.company_id = t.company_id desc limit 1)
         else t.of_event end as owner
  from told t
)
select format('%s %s', what, row_id) as subject,
       format('belongs to %s, its event %s to %s, its run to %s', coalesce(company_id::text, 'nobody'), event_id, coalesce(owner::text, 'nobody known'),
              coalesce(of_run::text, 'nobody')) as detail,
       coalesce(owner, of_run)::text as witness
from owned
-- a tenant that was merged into another is gone, and its history may keep its id
where exists (select from public.companies c where c.id in (owner, of_run) and c.id is distinct from company_id)
limit 1000;

-- seen:
select (select count(*) from (select from public.event_outbox limit 1000) o)
     + (select count(*) from (select from public.agent_tasks limit 1000) t) as seen;
