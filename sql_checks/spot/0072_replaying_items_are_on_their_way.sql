-- id: sql/spot/replaying-items-are-on-their-way
-- claim: Every dead letter that is `replaying` has an outbox row on its way.
-- cost: It is neither delivered nor offered for another replay: lost.
-- severity: page
-- covers: K18
select format('dead letter %s', d.id) as subject,
       'replaying, but no outbox row of its event is waiting' as detail,
       d.company_id::text as witness
from public.dead_letter_queue d
where d.status = 'replaying' and {{not_excluded}}
  and not exists (
    select from public.event_outbox o where o.event_id = d.event_id and o.processed_at is null and o.dead_at is null)
  -- an item that came without an event id need not have it written back: then any replayed event of its tenant will do
  and (d.event_id is not null or not exists (
    select from public.event_outbox o
    where o.company_id = d.company_id and o.replay_run_id is not null and o.processed_at is null and o.dead_at is null))
limit 1000;

-- seen:
select (select count(*) from (select from public.dead_letter_queue limit 100) d)
     + (select count(*) from (select from public.event_outbox limit 100) o) as seen;
