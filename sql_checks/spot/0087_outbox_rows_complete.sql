-- id: sql/spot/outbox-rows-complete
-- claim: Every recent outbox row has an event id, a tenant, a finite time of insertion that is not in the future, and an end, if any, between that and now.
-- cost: The event cannot be traced, or delivered exactly once.
-- severity: page
-- covers: N10
select format('outbox row %s', id) as subject,
       concat_ws(', ', case when event_id is null then 'no event_id' end, case when company_id is null then 'no company_id' end,
                 case when inserted_at is null then 'no inserted_at'
                      when inserted_at = '-infinity' then 'inserted -infinity'
                      when inserted_at > now() + interval '90 minutes' then format('inserted %s, which is to come', inserted_at) end,
                 case when ended_at < inserted_at - interval '90 minutes' then format('ended %s, before it was inserted', ended_at)
                      when ended_at > now() + interval '90 minutes' then format('ended %s, which is to come', ended_at) end) as detail,
       null::text as witness
from (select *, coalesce(processed_at, dead_at) as ended_at from public.event_outbox order by id desc {{at_most}}) o
-- a clock that was set back, or the repeated hour in autumn, loses nothing
where event_id is null or company_id is null or inserted_at is null or inserted_at = '-infinity'
   or inserted_at > now() + interval '90 minutes' or ended_at < inserted_at - interval '90 minutes' or ended_at > now() + interval '90 minutes';

-- seen:
select count(*) as seen from (select from public.event_outbox limit 1000) o;
