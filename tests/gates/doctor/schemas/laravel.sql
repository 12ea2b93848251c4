-- In the style of Laravel: bigint ids, text payloads, a queue's own failed_jobs beside the deployment's letters, native partitions.
create table tenants (id bigserial primary key, name varchar(255) not null, created_at timestamp(0), updated_at timestamp(0));
create table users (id bigserial primary key, tenant_id bigint references tenants, name varchar(255), email varchar(255));
create table jobs (id bigserial primary key, queue varchar(255), payload text, attempts smallint, reserved_at integer, available_at integer, created_at integer);
create table failed_jobs (id bigserial primary key, uuid varchar(255) unique, connection text, queue text, payload text, exception text, failed_at timestamp(0));
create table dead_messages (
  id bigserial primary key, tenant_id bigint not null references tenants, message_id uuid, type varchar(255) not null, stream varchar(255),
  content jsonb not null, failure_type varchar(255) not null, failure_reason text, attempts smallint not null default 0,
  max_attempts smallint not null default 3, retry_at timestamptz not null default now(),
  status varchar(32) not null default 'pending' check (status in ('pending', 'replaying', 'resolved', 'discarded')), created_at timestamptz not null
);
create table message_outbox (
  id bigserial, message_id uuid not null, tenant_id bigint not null, type varchar(255) not null, stream varchar(255), content jsonb not null,
  created_at timestamptz not null default now(), sent_at timestamptz, failed_at timestamptz, reserved_until timestamptz,
  attempts smallint not null default 0, available_at timestamptz not null default now(), primary key (id, created_at)
) partition by range (created_at);
create table message_outbox_2025 partition of message_outbox for values from ('2025-01-01') to ('2026-01-01');
create table message_outbox_2026 partition of message_outbox for values from ('2026-01-01') to ('2027-01-01');
create table replay_runs (
  id bigserial primary key, idempotency_key varchar(200) not null, tenant_id bigint not null, actor varchar(255), payload_hash varchar(64),
  status varchar(20) not null, target_count int, success_count int, failure_count int, requested_at timestamptz, completed_at timestamptz
);
create table feature_flags (
  id bigserial primary key, key varchar(255) not null, tenant_id bigint, enabled boolean not null, rollout_percentage int not null,
  description text, updated_at timestamptz
);
create unique index feature_flags_global on feature_flags (key) where tenant_id is null;
create unique index feature_flags_tenant on feature_flags (key, tenant_id);
create table agent_controls (tenant_id bigint, agents_paused boolean not null, pause_reason text, updated_at timestamptz);
