create table event_publication (
  id uuid primary key default gen_random_uuid(),
  listener_id text not null default 'mail.Listener.on(Order)',
  event_type text not null default 'Order',
  serialized_event text not null default '{}',
  publication_date timestamptz not null default now(),
  completion_date timestamptz,
  status text,
  completion_attempts integer,
  last_resubmission_date timestamptz
);
