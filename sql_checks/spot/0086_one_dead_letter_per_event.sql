-- id: sql/spot/one-dead-letter-per-event
-- claim: No event has two unresolved dead letters.
-- cost: Replaying them delivers one event twice, or fails for no reason.
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
limit 1000;

-- seen:
select (select count(*) from (select from public.dead_letter_queue limit 100) d)
     + (select count(*) from (select from public.event_outbox limit 100) o) as seen;
