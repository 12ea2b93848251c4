-- id: sql/spot/unique-keys-name-the-tenant
-- claim: Every unique key on text that clients choose includes the tenant, and none is of tenant, kind and state alone, in which rows may be alike.
-- cost: A conflict tells one tenant what another one has; a second event, letter, task or run of a kind is refused.
-- severity: warn
-- reads: catalogue
-- covers: J14
select i.indrelid::regclass::text as subject,
       'a unique key on idempotency_key or aggregate_key does not include company_id' as detail,
       pg_get_indexdef(i.indexrelid) as witness
from pg_index i
join pg_class c on c.oid = i.indrelid and c.relnamespace in (select oid from pg_namespace where nspname = any('{public}'))
where i.indisunique
  and exists (select from pg_attribute a where a.attrelid = i.indrelid and a.attnum = any(i.indkey)
              and a.attname = any(array[(parse_ident('public.replay_runs.idempotency_key'))[3], (parse_ident('public.events.aggregate_key'))[3],
                                    (parse_ident('public.event_outbox.aggregate_key'))[3],
                                    (parse_ident('public.dead_letter_queue.aggregate_key'))[3]]))
  and not exists (select from pg_attribute a where a.attrelid = i.indrelid and a.attnum = any(i.indkey) and a.attname = any('{company_id,tenant_id}'))
union all
select i.indrelid::regclass::text, 'a unique key refuses rows that the contract allows beside each other', pg_get_indexdef(i.indexrelid)
from (
  values ('public.events', array['public.events.company_id', 'public.events.event_type', 'public.events.aggregate_key', 'public.events.path']),
         ('public.event_outbox', array['public.event_outbox.company_id', 'public.event_outbox.event_type', 'public.event_outbox.aggregate_key']),
         ('public.dead_letter_queue', array['public.dead_letter_queue.company_id', 'public.dead_letter_queue.event_type',
                                            'public.dead_letter_queue.aggregate_key', 'public.dead_letter_queue.error_type',
                                            'public.dead_letter_queue.status']),
         ('public.agent_tasks', array['public.agent_tasks.company_id', 'public.agent_tasks.agent_name', 'public.agent_tasks.status']),
         ('public.replay_runs', array['public.replay_runs.company_id', 'public.replay_runs.status'])
) rows_of(table_name, alike)
cross join lateral (select array_agg((parse_ident(x))[3]) as names from unnest(alike) x) k
join pg_index i on i.indrelid = to_regclass(rows_of.table_name) and i.indisunique and i.indislive and 0 <> all(i.indkey::int2[])
where not exists (select from pg_attribute a
                  where a.attrelid = i.indrelid and a.attnum = any(i.indkey[0:i.indnkeyatts - 1]) and a.attname <> all(k.names))
  -- a column of the deployment's own may say of which rows there is one
  and not exists (select from pg_attribute a
                  where a.attrelid = i.indrelid and a.attnum > 0 and a.attname <> all(k.names) and not a.attisdropped
                    and pg_get_expr(i.indpred, i.indrelid) ~ format('\m%s\M', regexp_replace(a.attname, '\W', '.', 'g')));

-- seen:
select count(*) as seen from pg_index i join pg_class c on c.oid = i.indrelid where c.relnamespace in (select oid from pg_namespace where nspname = any('{public}')) and i.indisunique;
