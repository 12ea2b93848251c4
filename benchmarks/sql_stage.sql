-- name: setup
-- bench.tenants tenants
create temporary table tenants as select number, md5('tenant ' || number)::uuid as id from generate_series(1, current_setting('bench.tenants')::int) number;
insert into companies (id, name) select id, 'tenant ' || number from tenants;
create index on tenants (number);
analyze tenants;
alter table audit_logs disable trigger all;

-- name: indexes
-- what drops, and what makes again, the indexes that slow a bulk load down: all but primary keys
select case when c.oid is null then format('drop index %s', i.indexrelid::regclass)
            else format('alter table %s drop constraint %s', i.indrelid::regclass, quote_ident(c.conname)) end,
       case when c.oid is null then pg_get_indexdef(i.indexrelid)
            else format('alter table %s add constraint %s %s', i.indrelid::regclass, quote_ident(c.conname),
                        pg_get_constraintdef(c.oid)) end
from pg_index i
left join pg_constraint c on c.conindid = i.indexrelid and c.contype = 'u'
where i.indrelid in ('events'::regclass, 'event_outbox'::regclass, 'agent_tasks'::regclass, 'dead_letter_queue'::regclass, 'audit_logs'::regclass)
  and not i.indisprimary
  and not exists (select from pg_constraint f where f.contype = 'f' and f.conindid = i.indexrelid);

-- name: chunk
-- the rows bench.low to bench.high of bench.rows, counted from the oldest; every third second one
create temporary table chunk on commit drop as
select n, t.id as company_id, md5('bulk ' || n)::uuid as event_id,
       now() - interval '30 minutes' - make_interval(secs => 3 * (current_setting('bench.rows')::bigint - n)) as at
from generate_series(current_setting('bench.low')::bigint, current_setting('bench.high')::bigint) as series(n)
join tenants t on t.number = 1 + (n % current_setting('bench.tenants')::int)::int;

insert into events (id, company_id, event_type, created_at)
select event_id, company_id, 'shipment.updated', at from chunk order by n;

insert into event_outbox (event_id, company_id, event_type, inserted_at, processed_at, attempts, next_attempt_at)
select event_id, company_id, 'shipment.updated', at, at + interval '0.3 seconds', 1, at from chunk order by n;

insert into agent_tasks (company_id, event_id, status, created_at, updated_at)
select company_id, event_id, 'completed', at, at from chunk order by n;

insert into dead_letter_queue (company_id, event_id, event_type, error_type, status, created_at)
select company_id, md5('dead ' || n)::uuid, 'shipment.updated', 'timeout', 'resolved', at from chunk where n % 10 = 0;

insert into audit_logs (id, action, actor, scope, created_at, prev_hash, hash)
select nextval('audit_logs_id_seq'), 'dlq_replay_dry_run', 'operator', company_id::text, at - interval '25 hours',
       repeat(md5(n::text), 2), repeat(md5(n::text), 2)
from chunk order by n;

-- name: finish
insert into audit_heads (scope, last_id, last_hash, row_count)
select a.scope, a.last_id, l.hash, a.rows
from (select scope, max(id) as last_id, count(*) as rows from audit_logs group by scope) a
join audit_logs l on l.id = a.last_id
where not exists (select from audit_heads h where h.scope = a.scope);

alter table audit_logs enable always trigger audit_logs_chain;
alter table audit_logs enable always trigger audit_logs_append_only;

-- half of them of one tenant, the others of all in turn
insert into audit_logs (action, actor, scope, created_at)
select 'dlq_replay_dry_run', 'operator',
       case when n % 2 = 0 then '00000000-0000-4000-8000-000000000004'
            else (select id::text from tenants where number = 1 + (n / 2) % current_setting('bench.tenants')::int) end,
       now() - interval '24 hours 30 minutes' + make_interval(secs => n / 10.0)
from generate_series(1, 12000) n;
