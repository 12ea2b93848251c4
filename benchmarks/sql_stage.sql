-- name: setup
create temporary table tenants as select number, md5('tenant ' || number)::uuid as id from generate_series(1, 200) number;
insert into companies (id, name) select id, 'tenant ' || number from tenants;
analyze tenants;
alter table audit_logs disable trigger all;

-- name: chunk
-- the rows bench.low to bench.high of bench.rows, counted from the oldest; every third second one
create temporary table chunk on commit drop as
select n, t.id as company_id, md5('bulk ' || n)::uuid as event_id,
       now() - interval '30 minutes' - make_interval(secs => 3 * (current_setting('bench.rows')::bigint - n)) as at
from generate_series(current_setting('bench.low')::bigint, current_setting('bench.high')::bigint) as series(n)
join tenants t on t.number = 1 + (n % 200)::int;

insert into event_outbox (event_id, company_id, event_type, inserted_at, processed_at, attempts, next_attempt_at)
select event_id, company_id, 'shipment.updated', at, at + interval '0.3 seconds', 1, at from chunk order by n;

insert into agent_tasks (company_id, event_id, status, created_at, updated_at)
select company_id, event_id, 'completed', at, at from chunk order by n;

insert into dead_letter_queue (company_id, event_id, event_type, error_type, status, created_at)
select company_id, md5('dead ' || n)::uuid, 'shipment.updated', 'timeout', 'resolved', at from chunk where n % 10 = 0;

insert into audit_logs (id, action, actor, scope, created_at, prev_hash, hash)
select nextval('audit_logs_id_seq'), 'dlq_replay_dry_run', 'operator', company_id::text, at - interval '25 hours',
       md5(n::text), md5(n::text)
from chunk order by n;

-- name: finish
insert into audit_heads (scope, last_id, last_hash, row_count)
select a.scope, a.last_id, l.hash, a.rows
from (select scope, max(id) as last_id, count(*) as rows from audit_logs group by scope) a
join audit_logs l on l.id = a.last_id
where not exists (select from audit_heads h where h.scope = a.scope);

alter table audit_logs enable always trigger audit_logs_chain;
alter table audit_logs enable always trigger audit_logs_append_only;

insert into audit_logs (action, actor, scope, created_at)
select 'dlq_replay_dry_run', 'operator', '00000000-0000-4000-8000-000000000004',
       now() - interval '24 hours 30 minutes' + make_interval(secs => n / 10.0)
from generate_series(1, 12000) n;
