create schema pgmq;
create table pgmq.q_mail (
  msg_id bigint generated always as identity primary key,
  read_ct integer not null default 0,
  enqueued_at timestamptz not null default now(),
  vt timestamptz not null default now(),
  message jsonb,
  headers jsonb
);
create index on pgmq.q_mail (vt);
create table pgmq.a_mail (
  msg_id bigint primary key,
  read_ct integer not null default 0,
  enqueued_at timestamptz not null default now(),
  archived_at timestamptz not null default now(),
  vt timestamptz not null default now(),
  message jsonb,
  headers jsonb
);
