-- In the style of Rails: bigint ids, string states without a CHECK, polymorphic names, timestamps without time zone.
create table organizations (id bigserial primary key, name varchar not null, created_at timestamp not null, updated_at timestamp not null);
create table users (id bigserial primary key, email varchar not null, organization_id bigint references organizations, created_at timestamp not null);
create table posts (id bigserial primary key, title varchar, body text, user_id bigint references users, published_at timestamp);
create table failed_jobs (
  id bigserial primary key, organization_id bigint not null references organizations, message_id bigint, job_class varchar not null,
  partition_key varchar, arguments jsonb not null default '{}', exception_class varchar not null, exception_message text,
  attempts integer not null default 0, max_attempts integer not null default 5, retry_at timestamp not null default now(),
  state varchar not null default 'waiting', created_at timestamp not null default now()
);
create table outbox_messages (
  id bigserial primary key, message_id bigint not null, organization_id bigint not null references organizations, topic varchar not null,
  partition_key varchar, payload jsonb not null, created_at timestamp not null default now(), published_at timestamp,
  discarded_at timestamp, locked_until timestamp, delivery_attempts integer not null default 0, run_at timestamp not null default now(),
  redrive_id bigint
);
create table redrives (
  id bigserial primary key, idempotency_token varchar not null, organization_id bigint not null references organizations,
  requested_by varchar, request_digest varchar, state varchar not null default 'running', items_total integer, succeeded integer,
  failed integer, started_at timestamp, finished_at timestamp
);
create unique index on redrives (organization_id, idempotency_token);
create table flipper_flags (
  id bigserial primary key, flag_key varchar not null, organization_id bigint references organizations, active boolean not null,
  percentage integer not null default 100, notes text, lock_version integer not null default 0, updated_at timestamp not null
);
create unique index on flipper_flags (flag_key, organization_id) nulls not distinct;
create table audit_trail (
  id bigserial primary key, action_name varchar not null, whodunnit varchar, subject varchar, item_count integer,
  ok_count integer, error_count integer, details jsonb, trace_id varchar, created_at timestamp not null
);
create table schema_migrations (version varchar primary key);
create table ar_internal_metadata (key varchar primary key, value varchar, created_at timestamp, updated_at timestamp);
