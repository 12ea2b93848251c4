-- id: sql/spot/events-are-there-once
-- claim: Every event of the last day has a tenant, exists there once, and waits in the outbox once at most; its time is finite and
--   not in the future. No two outbox rows of a tenant share an id, and no two dead letters.
-- cost: One order is booked twice, and no unique key prevents it.
-- severity: warn
-- covers: K06
select format('event %s', id) as subject, format('%s rows in events', count(*)) as detail, company_id::text as witness
from (
  select id, company_id from public.events where created_at > now() - interval '1 day' and {{not_excluded}} order by created_at desc {{at_most}}
) recent
group by id, company_id having count(*) > 1
union all
select format('event %s', event_id), format('waits in %s outbox rows', count(*)), company_id::text
from (
  select event_id, company_id from public.event_outbox
  where processed_at is null and dead_at is null and event_id is not null and {{not_excluded}} order by id desc {{at_most}}
) waiting
group by event_id, company_id having count(*) > 1
union all
-- a producer's clock in another zone is hours ahead: until then its event counts as one of the last day
select format('event %s', id), format('is of %s, and it is %s', created_at, now()), company_id::text
from public.events where (created_at > now() + interval '30 minutes' or created_at = '-infinity') and {{not_excluded}}
union all
select format('event %s', id), 'is of no tenant', path::text
from (select * from public.events where created_at > now() - interval '1 day' order by created_at desc {{at_most}}) e
where company_id is null
union all
select format('%s %s', what, id), format('%s rows have this id', count(*)), company_id::text
from (
  (select 'outbox row' as what, id::text as id, company_id from public.event_outbox where {{not_excluded}} order by event_outbox.id desc {{at_most}})
  union all
  (select 'dead letter', id::text, company_id from public.dead_letter_queue where {{not_excluded}} order by created_at desc {{at_most}})
) numbered
group by what, id, company_id having count(*) > 1
limit 1000;

-- seen:
select count(*) as seen from (
  select from public.events where created_at > now() - interval '1 day' and {{not_excluded}} limit 1000
) e;
