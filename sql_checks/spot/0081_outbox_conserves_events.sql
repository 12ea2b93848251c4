-- id: sql/spot/outbox-conserves-events
-- claim: Every event of the last hour on the outbox path has an outbox row written in its own transaction; events on the direct path have none.
-- cost: The customer's request was accepted, and the event is lost.
-- severity: page
-- covers: K03 K18
with emitted as (
  select id, company_id, txid, created_at
  from public.events
  where created_at > now() - interval '1 hour' and path = 'outbox' and {{not_excluded}}
  order by created_at desc {{at_most}}
)
select format('event %s', e.id) as subject,
       case when exists (select from public.event_outbox o where o.event_id = e.id)
            then format('its outbox row is of another transaction than %s', e.txid) else 'it has no outbox row' end as detail,
       e.company_id::text as witness
from emitted e
where not exists (select from public.event_outbox o where o.event_id = e.id and o.txid = e.txid)
  -- where processed rows are soon cleared away, it had one: none as old is left, and it has its effect
  and coalesce(
    (select true from public.event_outbox o where o.event_id = e.id limit 1),
    (select true from public.event_outbox o where o.processed_at is not null and o.inserted_at < e.created_at limit 1),
    (select false from public.agent_tasks t where t.event_id = e.id and t.status = 'completed' limit 1), true)
union all
select format('event %s', e.id), 'it took the direct path, and has an outbox row', e.company_id::text
from (
  select id, company_id from public.events
  where created_at > now() - interval '1 hour' and path = 'direct' and {{not_excluded}}
  order by created_at desc {{at_most}}
) e
-- a dead letter of it may have been sent again
where exists (select from public.event_outbox o where o.event_id = e.id)
  and not exists (select from public.dead_letter_queue d where d.event_id = e.id);

-- seen:
select count(*) as seen from (
  select from public.event_outbox where inserted_at > now() - interval '1 day' and {{not_excluded}} limit 1000
) o;
