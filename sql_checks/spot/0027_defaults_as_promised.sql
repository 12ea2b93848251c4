-- id: sql/spot/defaults-as-promised
-- claim: What a row has that does not say it is what the contract promises: times of now, ids of its own, its own transaction, budgets of
--   500 and 10000 of which nothing is used, letters that wait for a replay, events that are due and not at their end, flags and pauses
--   of everybody; and no column is asked for that a row may leave out. Keys and error types of 200 characters fit, times are kept to the
--   millisecond, payloads are jsonb, counts are numbers, and ids that name each other are of one type.
-- cost: A producer that leaves a column out writes a row with a wrong day, one that no replay takes, or one taken for another.
-- severity: warn
-- reads: catalogue
-- covers: N04 N10
with promised(kind, name) as (
  values ('now', 'public.dead_letter_queue.retry_after'), ('now', 'public.dead_letter_queue.created_at'),
         ('now', 'public.event_outbox.inserted_at'), ('due', 'public.event_outbox.next_attempt_at'), ('now', 'public.events.created_at'),
         ('now', 'public.replay_runs.requested_at'), ('now', 'public.agent_tasks.created_at'), ('now', 'public.audit_logs.created_at'),
         ('due', 'public.replay_budgets.day'), ('due', 'public.replay_budgets.month'),
         ('own', 'public.companies.id'), ('own', 'public.events.id'), ('own', 'public.event_outbox.id'), ('own', 'public.event_outbox.event_id'),
         ('own', 'public.dead_letter_queue.id'), ('own', 'public.dead_letter_queue.event_id'), ('own', 'public.agent_tasks.event_id'),
         ('own', 'public.event_outbox.aggregate_key'), ('own', 'public.dead_letter_queue.aggregate_key'),
         ('own', 'public.event_outbox.replay_run_id'),
         ('own', 'public.replay_runs.id'), ('own', 'public.replay_runs.idempotency_key'), ('own', 'public.audit_logs.id'),
         ('own', 'public.events.txid'), ('own', 'public.event_outbox.txid'), ('own', 'public.replay_runs.txid'), ('own', 'public.audit_logs.txid'),
         ('due', 'public.event_outbox.claimed_until'), ('open', 'public.event_outbox.processed_at'), ('open', 'public.event_outbox.dead_at'),
         ('open', 'public.replay_runs.completed_at'), ('fleet', 'public.feature_flags.company_id'), ('fleet', 'public.agent_controls.company_id'),
         ('first', 'public.event_outbox.attempts'), ('first', 'public.dead_letter_queue.retry_count'),
         ('0', 'public.replay_budgets.daily_used'), ('0', 'public.replay_budgets.monthly_used'),
         ('500', 'public.replay_budgets.daily_limit'), ('10000', 'public.replay_budgets.monthly_limit'),
         ('tries', 'public.dead_letter_queue.max_retries'), ('waits', 'public.dead_letter_queue.status'),
         ('exact', 'public.edge_rate_limits.hits'), ('exact', 'public.dead_letter_queue.retry_after'),
         ('exact', 'public.dead_letter_queue.created_at'), ('exact', 'public.event_outbox.inserted_at'),
         ('exact', 'public.event_outbox.next_attempt_at'), ('exact', 'public.event_outbox.claimed_until'),
         ('exact', 'public.audit_logs.created_at'), ('key', 'public.replay_runs.idempotency_key'), ('error', 'public.dead_letter_queue.error_type'),
         ('jsonb', 'public.events.payload'), ('jsonb', 'public.event_outbox.payload'), ('jsonb', 'public.dead_letter_queue.payload'),
         ('jsonb', 'public.audit_logs.metadata')
), given as (
  select p.kind, p.name, e.expression, format_type(a.atttypid, a.atttypmod) as type, held.type as atttypid,
         case when t.typcategory in ('D', 'A') then held.modifier end as digits,
         constant,
         case when held.type in ('varchar'::regtype, 'bpchar'::regtype) and held.modifier > 4 then held.modifier - 4 end as most
  from promised p
  cross join lateral parse_ident(p.name) i(words)
  join pg_attribute a on a.attrelid = to_regclass(quote_ident(words[1]) || '.' || quote_ident(words[2])) and a.attname = words[3] and a.attgenerated = ''
  join pg_type t on t.oid = a.atttypid
  -- a domain holds what its base holds
  cross join lateral (select case t.typtype when 'd' then t.typbasetype else a.atttypid end as type,
                             case t.typtype when 'd' then t.typtypmod else a.atttypmod end as modifier) held
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  cross join lateral (select pg_get_expr(d.adbin, d.adrelid) as expression) e
  -- a default that is no constant may be a function of the deployment's own, and is not judged
  cross join lateral (select coalesce(substring(e.expression from '^''((?:[^'']|'''')*)''::[^()]+(?:\(\d+\))?$'),
                                      substring(e.expression from '^\d+$')) as constant) c
  -- what a trigger gives each new row, or each that has the default, takes the default's place
  where kind in ('exact', 'key', 'error', 'jsonb') or not exists (
    select from pg_trigger g join pg_proc f on f.oid = g.tgfoid
    cross join lateral (select regexp_replace(regexp_replace(f.prosrc, '/\*.*?\*/', ' ', 'g'), '--[^\n]*', '', 'g') as body) b
    where g.tgrelid = a.attrelid and g.tgenabled in ('O', 'A') and g.tgtype & 7 = 7
      and (b.body ~* format('(?:;|\mbegin)\s+new\."?%1$s"?\s*:?=(?!\s*coalesce\()|\minto\s[^;]*\mnew\."?%1$s\M', a.attname)
           or constant ~ '^[\w-]+$'
              and b.body ~* format('\mif\s[^;]*\mnew\."?%1$s\M[^;]*\m%2$s\M[^;]*\mthen\s+new\."?%1$s"?\s*:?=', a.attname, constant)))
), kinds(kind, name, named) as (
  -- a number, a time, a truth, or the id of something elsewhere
  values ('N', 'public.event_outbox.attempts', null), ('N', 'public.dead_letter_queue.retry_count', null),
         ('N', 'public.dead_letter_queue.max_retries', null), ('N', 'public.replay_budgets.daily_limit', null),
         ('N', 'public.replay_budgets.monthly_limit', null), ('N', 'public.replay_budgets.daily_used', null),
         ('N', 'public.replay_budgets.monthly_used', null), ('N', 'public.replay_runs.target_count', null),
         ('N', 'public.replay_runs.success_count', null), ('N', 'public.replay_runs.failure_count', null),
         ('N', 'public.audit_logs.id', null), ('N', 'public.audit_logs.target_count', null), ('N', 'public.audit_logs.success_count', null),
         ('N', 'public.audit_logs.failure_count', null), ('N', 'public.audit_heads.last_id', null), ('N', 'public.audit_heads.row_count', null),
         ('N', 'public.feature_flags.rollout_percentage', null), ('B', 'public.feature_flags.enabled', null),
         ('B', 'public.agent_controls.agents_paused', null), ('A', 'public.edge_rate_limits.hits', null),
         ('D', 'public.dead_letter_queue.retry_after', null), ('D', 'public.dead_letter_queue.created_at', null),
         ('D', 'public.event_outbox.inserted_at', null), ('D', 'public.event_outbox.next_attempt_at', null),
         ('D', 'public.event_outbox.claimed_until', null), ('D', 'public.event_outbox.processed_at', null),
         ('D', 'public.event_outbox.dead_at', null), ('D', 'public.events.created_at', null), ('D', 'public.replay_runs.requested_at', null),
         ('D', 'public.replay_runs.completed_at', null), ('D', 'public.audit_logs.created_at', null),
         ('D', 'public.agent_tasks.created_at', null), ('D', 'public.agent_tasks.updated_at', null),
         ('id', 'public.event_outbox.event_id', 'public.events.id'), ('id', 'public.dead_letter_queue.event_id', 'public.events.id'),
         ('id', 'public.agent_tasks.event_id', 'public.events.id'), ('id', 'public.event_outbox.replay_run_id', 'public.replay_runs.id'),
         ('id', 'public.events.txid', 'public.event_outbox.txid'), ('id', 'public.replay_runs.txid', 'public.audit_logs.txid'),
         ('id', 'public.events.company_id', 'public.companies.id'), ('id', 'public.event_outbox.company_id', 'public.companies.id'),
         ('id', 'public.dead_letter_queue.company_id', 'public.companies.id'), ('id', 'public.agent_tasks.company_id', 'public.companies.id'),
         ('id', 'public.replay_runs.company_id', 'public.companies.id'), ('id', 'public.replay_budgets.company_id', 'public.companies.id'),
         ('id', 'public.feature_flags.company_id', 'public.companies.id'), ('id', 'public.agent_controls.company_id', 'public.companies.id')
), typed as (
  select n.name, format_type(a.atttypid, a.atttypmod) as type, b.oid as base, b.typcategory::text as category
  from (select name from kinds union select named from kinds) n
  cross join lateral parse_ident(n.name) i(words)
  join pg_attribute a on a.attrelid = to_regclass(quote_ident(words[1]) || '.' || quote_ident(words[2])) and a.attname = words[3]
  join pg_type t on t.oid = a.atttypid
  join pg_type b on b.oid = case t.typtype when 'd' then t.typbasetype else t.oid end
)
select name as subject,
       case when kind in ('key', 'error') then format('holds %s characters, 200 may come', most)
            when kind = 'exact' then format('%s rounds what it holds', type)
            when kind = 'jsonb' then format('is of type %s', type)
            else format('the default is %s', expression) end as detail,
       case kind when 'now' then 'the time of the row is due' when 'due' then 'the time of the row, or an earlier one, is due'
                 when 'own' then 'each row needs one of its own' when 'open' then 'a row has not ended when it comes'
                 when 'fleet' then 'a row that names no tenant is everybody''s' when 'first' then 'nothing was tried yet' when 'tries' then 'no replay takes such a letter'
                 when 'waits' then 'no replay takes such a letter' when 'key' then null when 'error' then null when 'jsonb' then 'jsonb is due'
                 when 'exact' then 'a time of now is due now, and in its order' else kind || ' is due' end as witness
from given
where case when kind in ('now', 'due') then
             -- a time that is long past is due at once, and its budget counts as nothing used
             -- the day of a session's own zone
             name ~ 'replay_budgets' and expression ~* '\m(current_date|(now|\w+_timestamp)\()' and expression !~* 'time ?zone' and exists (
               select from pg_db_role_setting s
               cross join unnest(s.setconfig) c(text)
               where s.setdatabase in ((select oid from pg_database where datname = current_database()), 0)
                 and (s.setrole = 0 or s.setrole in (select oid from pg_roles where rolname in ('replay_service', 'replay_worker')))
                 and c.text ~* '^timezone=' and c.text !~* '[=/](utc|gmt|uct|zulu|universal)$')
             -- or of a zone that it names
             or name ~ 'replay_budgets' and substring(lower(expression) from '(?:time zone|timezone\()\W*''([^'']+)''')
                  !~* '^(etc/)?(utc|gmt|uct|zulu|universal|greenwich|z|[+-]?0+(:00)*)$'
             -- or one of minutes ahead
             or name ~ '_outbox' and substring(expression from '\+ ''([^'']+)''::interval')::interval > '2 s'
             or constant ~ '^(infinity|\d{4}-\d\d)' and (kind = 'now' or constant !~ '^(0|19[0-6]|1970)')
             or kind = 'now' and expression ~* ('^\(*(now|clock_timestamp|statement_timestamp|transaction_timestamp|current_timestamp)(\(\))?\)* '
                                                || case when name = 'public.dead_letter_queue.retry_after' then '\+ ' else '[-+] ' end)
             or kind = 'now' and name <> 'public.dead_letter_queue.retry_after' and expression ~* '^\(*(current_date|date_trunc\(''(hour|day)'')'
           when kind in ('own', 'fleet') then constant is not null
           when kind = 'open' then expression ~* '\m(now|\w+_timestamp)\(|\mcurrent_(date|timestamp)\M' or constant !~ '^(0|19[0-6]|1970)'
           when kind = 'first' then constant !~ '^[01]$'
           when kind = 'tries' then constant = '0'
           when kind = 'waits' then constant in ('replaying', 'resolved', 'discarded')
           when kind = 'exact' then atttypid = 'date'::regtype or digits between 0 and 2
           when kind = 'key' then most < {{limit_key_length}}
           when kind = 'error' then most < 200
           when kind = 'jsonb' then atttypid <> 'jsonb'::regtype
           else constant <> kind end
union all
select format('%s.%s', c.oid::regclass, a.attname),
       case when a.attnotnull then 'is NOT NULL, and has no default' else 'has no default' end, 'a row may leave it out'
from (
  -- a row gives these, and has these others in any case
  values ('public.events', array['public.events.company_id', 'public.events.event_type', 'public.events.aggregate_key', 'public.events.payload',
                                 'public.events.path'], null::text[]),
         ('public.feature_flags', array['public.feature_flags.key', 'public.feature_flags.company_id', 'public.feature_flags.enabled',
                                        'public.feature_flags.rollout_percentage'], null),
         ('public.agent_controls', array['public.agent_controls.company_id', 'public.agent_controls.agents_paused'], null),
         ('public.replay_budgets', array['public.replay_budgets.company_id'],
          array['public.replay_budgets.daily_limit', 'public.replay_budgets.monthly_limit']),
         ('public.edge_rate_limits', array['public.edge_rate_limits.key', 'public.edge_rate_limits.hits'], null),
         ('public.replay_runs', array['public.replay_runs.idempotency_key', 'public.replay_runs.company_id', 'public.replay_runs.actor',
                                      'public.replay_runs.payload_hash', 'public.replay_runs.status'], null),
         ('public.audit_logs', array['public.audit_logs.action', 'public.audit_logs.actor', 'public.audit_logs.scope'], null),
         ('public.agent_tasks', array['public.agent_tasks.company_id', 'public.agent_tasks.agent_name', 'public.agent_tasks.status'], null),
         ('public.event_outbox', array['public.event_outbox.company_id', 'public.event_outbox.event_type', 'public.event_outbox.payload'],
          array['public.event_outbox.event_id', 'public.event_outbox.txid']),
         ('public.dead_letter_queue', array['public.dead_letter_queue.company_id', 'public.dead_letter_queue.event_type',
                                            'public.dead_letter_queue.payload', 'public.dead_letter_queue.error_type'],
          array['public.dead_letter_queue.status', 'public.dead_letter_queue.retry_count', 'public.dead_letter_queue.max_retries',
                'public.dead_letter_queue.retry_after'])
) asked(table_name, given, always)
join pg_class c on c.oid = to_regclass(asked.table_name) and c.relkind in ('r', 'p')
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and not a.atthasdef and a.attidentity = ''
join pg_type t on t.oid = a.atttypid and t.typdefault is null
where (a.attnotnull and not exists (select from unnest(given) g where (parse_ident(g))[3] = a.attname)
    or exists (select from unnest(always) g where (parse_ident(g))[3] = a.attname))
  -- what a trigger may give it, is not judged
  and not exists (
    select from pg_trigger g join pg_proc f on f.oid = g.tgfoid join pg_language l on l.oid = f.prolang
    where g.tgrelid = c.oid and g.tgenabled in ('O', 'A') and g.tgtype & 7 = 7
      and (l.lanname <> 'plpgsql' or f.prosrc ~* format('\mnew\s*:?=|populate_record|\m%s\M', regexp_replace(a.attname, '\W', '.', 'g'))))
union all
select k.name, format('is of type %s', t.type) || coalesce(', and ' || o.name || ' of type ' || o.type, ''),
       case k.kind when 'N' then 'a number is due' when 'D' then 'a time is due' when 'B' then 'a boolean is due'
                   when 'A' then 'an array is due' else 'what names it is of its type' end
from kinds k
join typed t on t.name = k.name
left join typed o on o.name = k.named
where case when k.kind <> 'id' then t.category <> k.kind
           else o.base <> t.base and not (o.category = t.category and t.category in ('N', 'S')) end;

-- seen:
with promised(name) as (
  values ('public.dead_letter_queue.created_at'), ('public.event_outbox.inserted_at'), ('public.events.created_at'),
         ('public.replay_runs.requested_at'), ('public.replay_budgets.daily_limit'), ('public.companies.id')
)
select count(*) as seen
from promised
cross join lateral parse_ident(name) i(words)
join pg_attribute a on a.attrelid = to_regclass(quote_ident(words[1]) || '.' || quote_ident(words[2])) and a.attname = words[3];
