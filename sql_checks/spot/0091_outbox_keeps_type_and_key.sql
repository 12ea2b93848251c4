-- id: sql/spot/outbox-keeps-type-and-key
-- claim: An outbox row has the type and the key of its event, and where payloads are handed on, its payload.
-- cost: The wrong agent is called, or events that belong together are delivered out of order.
-- severity: warn
-- covers: K12
with sent as (
  select id, event_id, company_id, event_type::text as event_type, aggregate_key::text as aggregate_key
  from public.event_outbox
  where {{not_excluded}}
  order by id desc {{at_most}}
), told as materialized (
  -- looked up one by one: as a join it would be hashed, and the whole table read
  select s.*, (select array[e.event_type::text, e.aggregate_key::text] from public.events e
               where e.id = s.event_id and e.company_id = s.company_id limit 1) as of_event
  from sent s
), handed_on as materialized (
  -- of the newest, for payloads may be large. One may be added to, or shortened when it was sent; where most are others than
  -- their events', all are made anew
  select *, count(*) filter (where is_kept) over () * 10 > count(*) over () * 9 as is_custom
  from (
    select s.id, s.event_id, s.company_id, o.payload <@ e.payload or o.payload @> e.payload as is_kept
    from (select id, event_id, company_id from sent order by id desc limit 1000) s
    join public.event_outbox o on o.id = s.id
    cross join lateral (
      select payload from public.events e where e.id = s.event_id and e.company_id = s.company_id limit 1) e
  ) compared
)
select format('outbox row %s', id) as subject,
       format('is %s of key %s, and its event %s of key %s', event_type, coalesce(aggregate_key, 'none'), of_event[1], coalesce(of_event[2], 'none'))
         as detail,
       format('event %s of %s', event_id, company_id) as witness
from told
where of_event is not null and (event_type, aggregate_key) is distinct from (of_event[1], of_event[2])
union all
select format('outbox row %s', id), 'its payload is another than its event''s', format('event %s of %s', event_id, company_id)
from handed_on
where is_custom and not is_kept
limit 1000;

-- seen:
select count(*) as seen from (select from public.event_outbox limit 1000) o;
