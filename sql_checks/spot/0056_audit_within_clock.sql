-- id: sql/spot/audit-within-clock
-- claim: Recent audit rows bear the time of the database: none lies in the future, nor days before the row that it follows. Their scope is a company's id, or all.
--   Each refusal of the last hour has its code, and those by limit or right have no row of their own each.
-- cost: The order of events in the trail is what a client said it was, or the tenant does not find them.
-- severity: warn
-- covers: I15
with recent as materialized (
  select id, action, scope, created_at, prev_hash, hash, metadata ->> 'code' as code from public.audit_logs order by id desc limit 1000
), refused as (
  select id, action, scope, created_at, code from recent where action = 'dlq_replay_refused' and created_at > now() - interval '1 hour'
)
select format('audit row %s', id) as subject, format('created_at is %s, now is %s', created_at, now()) as detail, action as witness
from recent
where created_at > now() + interval '1 minute'
union all
select format('audit row %s', r.id), format('created_at is %s, that of row %s before it %s', r.created_at, b.id, b.created_at), r.action
from recent r join recent b on b.scope = r.scope and b.hash = r.prev_hash
where r.created_at < b.created_at - interval '1 day'
union all
select format('audit row %s', id), 'a refusal without its code', action
from refused
where coalesce(code, '') = ''
union all
select format('refusals of %s', scope), format('%s rows of code %s within a minute; allowed: 1', count(*), code), min(created_at)::text
from refused
where code in ('forbidden', 'rate_limited')
group by scope, code, date_trunc('minute', created_at)
-- whose minute it is, a clock beside the database's may say
having count(*) > 2
union all
select format('audit row %s', id), format('its scope is %s; a company id in small letters, or all, is due', coalesce(quote_literal(scope), 'null')), action
from recent
where action in ('dlq_replay', 'dlq_replay_started', 'dlq_replay_completed', 'dlq_replay_stopped', 'dlq_replay_dry_run', 'dlq_replay_refused',
                 'flag_promoted', 'flag_rolled_back', 'agents_paused', 'rate_limits_cleared')
  and (scope is null or scope = '' or scope <> 'all'
       -- ids of another kind than the contract's have a form that no statement knows
       and pg_typeof((select id from public.companies limit 1)) = 'uuid'::regtype
       and (length(scope) <> 36 or translate(scope, '0123456789abcdef', '') <> '----'));

-- seen:
select count(*) as seen from (select from public.audit_logs limit 1000) a;
