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
join pg_class c on c.oid = i.indrelid and c.relnamespace = 'public'::regnamespace
where i.indisunique
  and exists (select from pg_attribute a where a.attrelid = i.indrelid and a.attnum = any(i.indkey)
              and a.attname in ('idempotency_key', 'aggregate_key'))
  and not exists (select from pg_attribute a where a.attrelid = i.indrelid and a.attnum = any(i.indkey) and a.attname = 'company_id');

-- seen:
select count(*) as seen from pg_index i join pg_class c on c.oid = i.indrelid where c.relnamespace = 'public'::regnamespace and i.indisunique;
