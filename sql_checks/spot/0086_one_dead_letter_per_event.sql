-- id: sql/spot/one-dead-letter-per-event
-- claim: No event has two unresolved dead letters, and one that waits has its event's type, the key of the event that was given up, and no
--   outbox row that waits, too.
-- cost: Replaying them delivers one event twice or out of its order, or fails for no reason.
-- severity: warn
-- covers: L06
select format('event %s', event_id) as subject, format('%s unresolved dead letters', count(*)) as detail,
       string_agg(id::text, ', ') as witness
from (
  select event_id, id from public.dead_letter_queue where status = 'pending' and event_id is not null and {{not_excluded}}
  union all
  select event_id, id from public.dead_letter_queue where status = 'replaying' and event_id is not null and {{not_excluded}}
) unresolved
group by event_id having count(*) > 1
union all
select format('event %s', d.event_id),
       format('its dead letter is %s of key %s, and its outbox row %s of key %s', d.event_type, coalesce(d.aggregate_key, 'none'), o.event_type,
              coalesce(o.aggregate_key, 'none')), d.id::text
from (
  select id, event_id, company_id, event_type::text as event_type, aggregate_key::text as aggregate_key from public.dead_letter_queue
  where status = 'pending' and event_id is not null and {{not_excluded}} {{at_most}}
) d
cross join lateral (
  select event_type::text as event_type, aggregate_key::text as aggregate_key, dead_at is not null as is_dead
  from public.event_outbox where event_id = d.event_id and company_id = d.company_id order by id limit 1
) o
where o.event_type <> d.event_type
  -- a letter that another producer wrote may name no key
  or o.is_dead and d.aggregate_key is distinct from o.aggregate_key
     and 'public.dead_letter_queue.aggregate_key' is not null and 'public.event_outbox.aggregate_key' is not null
union all
select format('event %s', o.event_id), format('waits in the outbox (row %s), and in the dead-letter queue', o.id), d.id::text
from public.event_outbox o
join public.dead_letter_queue d on d.event_id = o.event_id and d.company_id = o.company_id and d.status = 'pending'
where o.processed_at is null and o.dead_at is null and o.replay_run_id is null and o.{{not_excluded}}
limit 1000;

-- seen:
select (select count(*) from (select from public.dead_letter_queue limit 100) d)
     + (select count(*) from (select from public.event_outbox limit 100) o) as seen;
