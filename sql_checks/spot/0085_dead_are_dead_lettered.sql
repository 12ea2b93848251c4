-- id: sql/spot/dead-are-dead-lettered
-- claim: Every event given up in the last day is in the dead-letter queue.
-- cost: It was given up, and nobody can replay it: lost.
-- severity: page
-- covers: K14 K18
with dead as (
  select id, event_id, company_id, dead_at from public.event_outbox
  where dead_at > now() - interval '1 day' and {{not_excluded}}
  order by dead_at desc {{at_most}}
)
select format('outbox row %s', d.id) as subject,
       format('dead since %s, but event %s is not in the dead-letter queue', d.dead_at, d.event_id) as detail,
       d.company_id::text as witness
from dead d
where not exists (select from public.dead_letter_queue q where q.event_id = d.event_id);

-- seen:
select count(*) as seen from (select from public.event_outbox limit 1000) o;
