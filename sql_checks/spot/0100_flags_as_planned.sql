-- id: sql/spot/flags-as-planned
-- claim: The rollout flag stands on a step of the plan, or before the first one, every rollout is between 0 and 100 %, no cached query plan
--   keeps an old flag value, and no answer is NULL. Service and worker may ask is_feature_enabled, and do not own it; no other function
--   takes the question; and a flag's version grows by a trigger.
-- cost: The gate and the service do not agree on who gets the release.
-- severity: warn
-- covers: H08
with plan as (
  select string_to_array(coalesce(nullif(current_setting('replaygate.steps', true), ''), '10,50,100'), ',')::int[] as steps
)
select key as subject,
       format('enabled %s at %s %%; allowed: %s, or less than the first of them', enabled, rollout_percentage,
              array_to_string(steps, ', ')) as detail,
       coalesce(company_id::text, 'global') as witness
from public.feature_flags, plan
where key = 'outbox.enabled' and company_id is null
  and (rollout_percentage is null or rollout_percentage <> all(steps) and rollout_percentage >= steps[1])
union all
select key, format('rollout %s', coalesce(rollout_percentage::text, 'NULL')), coalesce(company_id::text, 'global')
from public.feature_flags
where rollout_percentage is null or rollout_percentage not between 0 and 100 or enabled is null
union all
select p.oid::regprocedure::text, 'is declared IMMUTABLE: a change of a flag need not count in a session that has asked before', null
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where format('%I.%I', n.nspname, p.proname) = 'public.is_feature_enabled' and p.provolatile = 'i'
union all
select p.oid::regprocedure::text, format('%s may not ask it', r.rolname), p.proacl::text
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
join pg_roles r on r.rolname in ('replay_service', 'replay_worker') and has_any_column_privilege(r.oid, to_regclass('public.event_outbox'), 'SELECT')
where format('%I.%I', n.nspname, p.proname) = 'public.is_feature_enabled' and p.proargtypes = '25 2950'
  -- itself, or as one that it may become
  and not exists (select from pg_roles o where pg_has_role(r.oid, o.oid, 'MEMBER')
                  and has_function_privilege(o.oid, p.oid, 'EXECUTE') and has_schema_privilege(o.oid, n.oid, 'USAGE'))
union all
select p.oid::regprocedure::text, format('belongs to %s, which may replace it', r.rolname), null
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
join pg_roles r on r.rolname in ('replay_service', 'replay_worker') and not r.rolsuper and pg_has_role(r.oid, p.proowner, 'MEMBER')
where format('%I.%I', n.nspname, p.proname) = 'public.is_feature_enabled'
union all
-- two untyped literals are texts first
select p.oid::regprocedure::text, 'takes the question of a caller that names no types', p.prosrc
from pg_proc p
join pg_namespace n on n.oid = p.pronamespace
where format('%I.%I', n.nspname, p.proname) = 'public.is_feature_enabled' and p.proargtypes = '25 25' and p.prosrc not ilike '%uuid%'
union all
select a.attrelid::regclass::text, format('no enabled trigger makes %s grow', a.attname), null
from (select parse_ident('public.feature_flags.version') as words) i
join pg_attribute a on a.attrelid = to_regclass(quote_ident(words[1]) || '.' || quote_ident(words[2])) and a.attname = words[3]
join pg_class c on c.oid = a.attrelid and c.relkind in ('r', 'p')
where not exists (select from pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal and t.tgenabled in ('O', 'A') and t.tgtype::int & 16 <> 0)
  and not exists (select from pg_rewrite w where w.ev_class = c.oid and w.ev_type = '2')
union all
select 'outbox.enabled', 'is_feature_enabled answers NULL for no tenant; it is never NULL', null
where public.is_feature_enabled('outbox.enabled', null::uuid) is null
union all
select 'outbox.enabled', 'there is no global row', null
where not exists (select from public.feature_flags where key = 'outbox.enabled' and company_id is null);

-- seen:
select count(*) as seen from public.feature_flags;
