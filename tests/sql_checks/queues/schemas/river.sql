create type river_job_state as enum
  ('available', 'cancelled', 'completed', 'discarded', 'pending', 'retryable', 'running', 'scheduled');
create table river_job (
  id bigserial primary key,
  state river_job_state not null default 'available',
  attempt smallint not null default 0,
  max_attempts smallint not null default 25,
  attempted_at timestamptz,
  created_at timestamptz not null default now(),
  finalized_at timestamptz,
  scheduled_at timestamptz not null default now(),
  priority smallint not null default 1,
  args jsonb not null default '{}',
  attempted_by text[],
  errors jsonb[],
  kind text not null default 'mail',
  metadata jsonb not null default '{}',
  queue text not null default 'default',
  tags varchar(255)[] not null default '{}',
  unique_key bytea,
  unique_states bit(8),
  constraint finalized_or_finalized_at_null
    check ((finalized_at is null and state not in ('cancelled', 'completed', 'discarded'))
           or (finalized_at is not null and state in ('cancelled', 'completed', 'discarded')))
);
create index river_job_prioritized_fetching_index on river_job (state, queue, priority, scheduled_at, id);
create unique index river_job_unique_idx on river_job (unique_key) where unique_key is not null;
create table river_queue (
  name text primary key,
  created_at timestamptz not null default now(),
  metadata jsonb not null default '{}',
  paused_at timestamptz,
  updated_at timestamptz not null default now()
);
create table river_migration (line text, version bigint, created_at timestamptz default now(), primary key (line, version));
insert into river_migration (line, version) select 'main', generate_series(1, 8);
create unlogged table river_leader (
  elected_at timestamptz not null default now(),
  expires_at timestamptz not null,
  leader_id text not null default 'host_1',
  name text primary key default 'default' check (name = 'default')
);
