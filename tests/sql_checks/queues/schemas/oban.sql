create type oban_job_state as enum
  ('available', 'suspended', 'scheduled', 'executing', 'retryable', 'completed', 'discarded', 'cancelled');
create table oban_jobs (
  id bigserial primary key,
  state oban_job_state not null default 'available',
  queue text not null default 'default',
  worker text not null default 'Mail',
  args jsonb not null default '{}',
  errors jsonb[] not null default '{}',
  attempt integer not null default 0,
  max_attempts integer not null default 20,
  inserted_at timestamp not null default timezone('UTC', now()),
  scheduled_at timestamp not null default timezone('UTC', now()),
  attempted_at timestamp,
  completed_at timestamp,
  attempted_by text[],
  discarded_at timestamp,
  priority integer not null default 0,
  tags text[] default '{}',
  meta jsonb default '{}',
  cancelled_at timestamp,
  constraint attempt_range check (attempt >= 0 and attempt <= max_attempts)
);
alter table oban_jobs add constraint non_negative_priority check (priority >= 0) not valid;
comment on table oban_jobs is '15';
create index oban_jobs_state_queue_priority_scheduled_at_id_index
  on oban_jobs (state, queue, priority, scheduled_at, id);
create unlogged table oban_peers (
  name text primary key default 'Oban', node text not null default 'app@host',
  started_at timestamp not null default timezone('UTC', now()), expires_at timestamp not null
);
create procedure tables_of_oban_for_python() language sql as $$
  create table oban_leaders (name text primary key, node text, elected_at timestamp, expires_at timestamp not null);
  create table oban_producers (uuid uuid primary key default gen_random_uuid(), name text default 'Oban',
    node text default 'n', queue text not null, meta jsonb not null default '{}', started_at timestamp default now(),
    updated_at timestamp not null default timezone('UTC', now())) $$;
