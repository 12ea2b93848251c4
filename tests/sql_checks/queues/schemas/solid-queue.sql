create table solid_queue_jobs (
  id bigserial primary key,
  queue_name varchar not null default 'default',
  class_name varchar not null default 'Mail',
  arguments text,
  priority integer not null default 0,
  active_job_id varchar,
  scheduled_at timestamp(6),
  finished_at timestamp(6),
  concurrency_key varchar,
  created_at timestamp(6) not null default timezone('UTC', now()),
  updated_at timestamp(6) not null default timezone('UTC', now())
);
create table solid_queue_ready_executions (
  id bigserial primary key,
  job_id bigint not null references solid_queue_jobs on delete cascade,
  queue_name varchar not null default 'default',
  priority integer not null default 0,
  created_at timestamp(6) not null default timezone('UTC', now())
);
create unique index on solid_queue_ready_executions (job_id);
create index on solid_queue_ready_executions (priority, job_id);
create index solid_queue_poll_by_queue on solid_queue_ready_executions (queue_name, priority, job_id);
create table solid_queue_scheduled_executions (
  id bigserial primary key,
  job_id bigint not null references solid_queue_jobs on delete cascade,
  queue_name varchar not null default 'default',
  priority integer not null default 0,
  scheduled_at timestamp(6) not null,
  created_at timestamp(6) not null default timezone('UTC', now())
);
create unique index on solid_queue_scheduled_executions (job_id);
create index on solid_queue_scheduled_executions (scheduled_at, priority, job_id);
create table solid_queue_claimed_executions (
  id bigserial primary key,
  job_id bigint not null references solid_queue_jobs on delete cascade,
  process_id bigint,
  created_at timestamp(6) not null default timezone('UTC', now())
);
create unique index on solid_queue_claimed_executions (job_id);
create table solid_queue_failed_executions (
  id bigserial primary key,
  job_id bigint not null references solid_queue_jobs on delete cascade,
  error text,
  created_at timestamp(6) not null default timezone('UTC', now())
);
create unique index on solid_queue_failed_executions (job_id);
create table solid_queue_blocked_executions (
  id bigserial primary key,
  job_id bigint not null references solid_queue_jobs on delete cascade,
  queue_name varchar not null default 'default',
  priority integer not null default 0,
  concurrency_key varchar not null default 'key',
  expires_at timestamp(6) not null default timezone('UTC', now()),
  created_at timestamp(6) not null default timezone('UTC', now())
);
create unique index on solid_queue_blocked_executions (job_id);
create table solid_queue_processes (
  id bigserial primary key,
  kind varchar not null default 'Worker',
  created_at timestamp(6) not null default timezone('UTC', now()),
  last_heartbeat_at timestamp(6) not null default timezone('UTC', now()),
  pid integer not null default 1,
  name varchar not null default 'worker'
);
create table solid_queue_recurring_executions (
  id bigserial primary key,
  job_id bigint not null references solid_queue_jobs on delete cascade,
  task_key varchar not null default 'nightly',
  run_at timestamp(6) not null,
  unique (task_key, run_at)
);
create table solid_queue_pauses (
  id bigserial primary key, queue_name varchar not null, created_at timestamp(6) not null default timezone('UTC', now())
);
