-- id: sql/spot/outbox-one-state
-- claim: Every outbox row is exactly one of pending, in flight, processed, dead.
-- cost: An event counts twice, or counts as both delivered and given up.
-- severity: page
-- covers: K18
select format('outbox row %s', id) as subject,
       format('processed %s and dead %s', processed_at, dead_at) as detail,
       event_id::text as witness
from (select * from public.event_outbox where dead_at is not null order by dead_at desc {{at_most}}) o
where processed_at is not null and {{not_excluded}};

-- seen:
select count(*) as seen from (select from public.event_outbox limit 1000) o;
