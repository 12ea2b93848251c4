-- id: sql/spot/unique-keys-name-the-tenant
-- claim: Every unique key on text that clients choose includes the tenant.
-- cost: A conflict tells one tenant what another one has.
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
  and not exists (select from pg_attribute a where a.attrelid = i.indrelid and a.attnum = any(i.indkey) and a.attname = any('{company_id,tenant_id}'));

-- seen:
select count(*) as seen from pg_index i join pg_class c on c.oid = i.indrelid where c.relnamespace in (select oid from pg_namespace where nspname = any('{public}')) and i.indisunique;
