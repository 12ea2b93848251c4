-- id: sql/spot/claims-within-lease
-- claim: No event stays claimed beyond its lease or waits for minutes after its turn, no lease is longer than a day, and no event is postponed for ever.
-- cost: Nobody delivers it: its worker died, or no worker sees it.
-- severity: page
-- covers: K04 K05
with tenants as materialized (
  select t.company_id, switched.at as switched_at,
         public.is_feature_enabled('outbox.enabled', t.company_id)
         and not exists (select from public.agent_controls a
                         where a.agents_paused and (a.company_id is null or a.company_id = t.company_id)) as is_on,
         -- what was held until now is on its way, unless a worker took it and others of the tenant were delivered since: in these minutes
         case when switched.at is not null then array(
           select distinct date_trunc('minute', p.processed_at) from public.event_outbox p
           where p.company_id = t.company_id and p.processed_at between now() - interval '1 day' and switched.at) end as delivered
  from (select distinct company_id from public.event_outbox where processed_at is null and dead_at is null) t
  cross join lateral (
    select max(s.updated_at) as at
    from (select company_id, updated_at from public.agent_controls
          union all select company_id, updated_at from public.feature_flags where key = 'outbox.enabled') s
    where s.updated_at between now() - interval '5 minutes' and now() and (s.company_id is null or s.company_id = t.company_id)) switched
), late as (
  select o.*
  from public.event_outbox o
  join tenants t on t.company_id = o.company_id
  -- a claim without an attempt put nothing off: the turn of its event was before it
  cross join lateral (select coalesce(case when o.attempts = 0 and o.next_attempt_at <= now() then o.claimed_until end,
                                      greatest(o.claimed_until, o.next_attempt_at), o.inserted_at) as at) due
  cross join (
    -- behind a backlog, an event waits for its turn like all others
    select case when count(*) > 1000 then interval '1 hour' else interval '5 minutes' end as patience
    from (select from public.event_outbox where processed_at is null and dead_at is null limit 1001) waiting
  ) p
  where o.processed_at is null and o.dead_at is null
    and (o.claimed_until > now() + interval '1 day' or o.next_attempt_at > now() + interval '1 year'
      or t.is_on and due.at < now() - p.patience
         and (t.switched_at is null or o.claimed_until is not null and (select count(*) >= 5 from unnest(t.delivered) minute where minute > due.at)))
)
select format('outbox row %s', id) as subject,
       case when claimed_until > now() + interval '1 day' then format('claimed until %s: more than a day ahead', claimed_until)
            when next_attempt_at > now() then format('put off until %s', next_attempt_at)
            when claimed_until is null then format('it is due since %s, and nobody took it', coalesce(next_attempt_at, inserted_at))
            else format('its lease ended %s, it is due since %s, and nobody took it', claimed_until, next_attempt_at) end as detail,
       format('event %s of %s', event_id, company_id) as witness
from late o
where {{not_excluded}}
  and (claimed_until > now() + interval '1 day' or next_attempt_at > now() + interval '1 year'
    or not exists (select from public.event_outbox earlier
                   where earlier.processed_at is null and earlier.dead_at is null and earlier.company_id = o.company_id
                     and earlier.aggregate_key = o.aggregate_key and earlier.id < o.id)
    -- a run has ten items in flight, and the others wait for them
    and not exists (select from public.event_outbox ahead
                    where ahead.replay_run_id = o.replay_run_id and ahead.processed_at is null and ahead.dead_at is null
                      and ahead.claimed_until > now()))
limit 1000;

-- seen:
select count(*) as seen from (select from public.event_outbox limit 1000) o;
