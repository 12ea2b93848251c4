-- What became of the events of each tenant: no effect within a minute, more than one, a failed task, a dead letter, a wait.
with {{step}}, spans as materialized (
  -- up to the time of the first events, of which then all are read: which rows come first in a table may depend on their fate
  select phase, since,
         (select max(created_at)
          from (select created_at
                from public.events
                where created_at >= s.since and created_at < s.until
                limit current_setting('replaygate.most_events')::int / 20) first_ones) as until
  from slices s
), sample as materialized (
  select s.phase, e.id, e.company_id, e.created_at, e.path = 'outbox' as via_outbox
  from spans s
  cross join lateral (
    select id, company_id, created_at, path
    from public.events
    where created_at >= s.since and created_at <= s.until
      and {{not_excluded}}
    offset 0
  ) e
), tenants as materialized (
  -- those that were drawn: no override, and no pause of their own that holds their events back
  select k.company_id, public.is_feature_enabled(current_setting('replaygate.flag'), k.company_id) as is_on,
         case when s.percent_before = 0 then false
              when 'public.is_feature_enabled.bucket' = 'own' then null
              else ('x' || encode(substr(sha256(convert_to(lower(current_setting('replaygate.flag') || ':' || k.company_id), 'UTF8')), 1, 4), 'hex'))
                     ::bit(32)::bigint % 100 < s.percent_before end as was_on
  from (select distinct company_id from sample) k cross join step s
  where not exists (select from public.feature_flags f
                    where f.key = current_setting('replaygate.flag') and f.company_id = k.company_id)
    and not exists (select from public.agent_controls a
                    where a.company_id = k.company_id and (a.agents_paused or a.updated_at > s.since - s.bake))
), outcomes as materialized (
  -- each table is asked once for all events: a join would read the whole of it, and a question for each event costs more
  select e.phase, e.company_id, e.via_outbox, coalesce(t.effects, 0) as effects, t.has_failed, d.event_id is not null as is_dead,
         -- what came later than a minute had not come when the youngest events were looked at
         case when t.effect_at <= e.created_at + interval '1 minute' then date_part('epoch', t.effect_at - e.created_at) end as lag_s
  from sample e
  left join (
    select event_id, count(*) filter (where status = 'completed') as effects, bool_or(status = 'failed') as has_failed,
           min(updated_at) filter (where status = 'completed') as effect_at
    from public.agent_tasks
    where event_id = any(array(select id from sample order by id))
    group by event_id
  ) t on t.event_id = e.id
  left join (
    select distinct event_id from public.dead_letter_queue where event_id = any(array(select id from sample order by id))
  ) d on d.event_id = e.id
), usual as materialized (
  select o.phase, percentile_disc(array[0.5, 0.95]) within group (order by coalesce(lag_s, 60)) as lags_s
  from (select phase, lag_s, row_number() over (partition by phase, company_id) as place,
               count(*) over (partition by phase) as events
        from outcomes join tenants using (company_id)
        where phase > 0 and not is_on) o
  join (select phase as p, count(distinct company_id) as tenants
        from outcomes join tenants using (company_id)
        where phase > 0 and not is_on
        group by phase) n on n.p = o.phase
  -- no more of one tenant than tenants have on average: one that is large does not say what is usual
  where o.place <= ceil(o.events::numeric / n.tenants)
  group by o.phase
), allowed as materialized (
  -- each part of the time since the step is held against the others of the same part
  select p.phase,
         greatest(current_setting('replaygate.lag_floor_s')::float8, lags_s[1] * current_setting('replaygate.lag_ratio')::float8) as p50_s,
         greatest(current_setting('replaygate.lag_floor_s')::float8, lags_s[2] * current_setting('replaygate.lag_ratio')::float8) as p95_s
  from (values (1), (2)) p(phase) left join usual using (phase)
)
select (select json_agg(json_build_array(p50_s, p95_s) order by phase) from allowed) as allowed_s,
       (select count(*) from sample where phase > 0) as sampled,
       json_agg(json_build_array(t.company_id, t.is_on, t.was_on, o.phase, o.events, o.via_outbox,
                                 o.without_effect, o.doubled, o.failed, o.dead, o.over_p50, o.over_p95)) as counts
from tenants t
join (
  select company_id, o.phase,
         count(*) as events,
         count(*) filter (where via_outbox) as via_outbox,
         count(*) filter (where lag_s is null) as without_effect,
         count(*) filter (where effects > 1) as doubled,
         count(*) filter (where has_failed) as failed,
         count(*) filter (where is_dead) as dead,
         count(*) filter (where lag_s is null or lag_s > p50_s) as over_p50,
         count(*) filter (where lag_s is null or lag_s > p95_s) as over_p95
  from outcomes o join allowed a on a.phase = greatest(o.phase, 1)
  group by company_id, o.phase
) o using (company_id);
