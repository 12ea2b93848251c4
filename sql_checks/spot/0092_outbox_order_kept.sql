-- id: sql/spot/outbox-order-kept
-- claim: In the last hour no event was delivered before an older one of its key.
-- cost: A cancelled order is paid, a deleted address is written again.
-- severity: warn
-- covers: K11
with delivered as (
  select id, event_id, company_id, aggregate_key, inserted_at, processed_at
  from public.event_outbox
  where processed_at > now() - interval '1 hour' and aggregate_key is not null and replay_run_id is null and {{not_excluded}}
  order by processed_at desc {{at_most}}
), ordered as (
  -- ids and times are given before their transactions commit: only what is minutes older was surely there, and no page, for a
  -- transaction may be longer
  select *, max(processed_at) over (
           partition by company_id, aggregate_key order by inserted_at range between unbounded preceding and interval '5 minutes' preceding
         ) as older_processed_at
  from delivered
), waiting as (
  select id, company_id, aggregate_key, inserted_at from public.event_outbox
  where processed_at is null and dead_at is null and aggregate_key is not null and replay_run_id is null and {{not_excluded}}
  order by id {{at_most}}
)
select format('outbox row %s', id) as subject,
       format('delivered %s, before a row of its key that is minutes older, delivered %s', processed_at, older_processed_at) as detail,
       format('key %s of %s', aggregate_key, company_id) as witness
from ordered
where older_processed_at > processed_at
union all
select format('outbox row %s', d.id),
       format('delivered %s, before row %s of its key, which still waits', d.processed_at, w.id),
       format('key %s of %s', d.aggregate_key, d.company_id)
from waiting w
join delivered d on d.company_id = w.company_id and d.aggregate_key = w.aggregate_key and d.id > w.id
  and d.inserted_at > w.inserted_at + interval '5 minutes'
limit 1000;

-- seen:
select count(*) as seen from (
  select from public.event_outbox where processed_at > now() - interval '1 hour' and {{not_excluded}} limit 1000
) o;
