create table outboxevent (
  id uuid primary key default gen_random_uuid(),
  aggregatetype varchar(255) not null default 'order',
  aggregateid varchar(255) not null default '1',
  type varchar(255) not null default 'created',
  payload jsonb
);
