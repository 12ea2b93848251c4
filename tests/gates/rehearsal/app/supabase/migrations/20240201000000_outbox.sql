-- The outbox, its dead letters, and what tends them.
create table public.event_outbox (
  id bigint generated always as identity primary key,
  event_id uuid not null default extensions.uuid_generate_v4(),
  company_id uuid not null references public.companies (id),
  payload jsonb not null,
  legacy_state text,
  attempts int not null default 0,
  created_at timestamptz not null default now(),
  processed_at timestamptz
);
create index event_outbox_waiting on public.event_outbox (created_at) where processed_at is null;

create table public.dead_letter_queue (
  id uuid primary key default gen_random_uuid(),
  company_id uuid not null references public.companies (id),
  error_type text not null,
  retry_count int not null default 0,
  retry_after timestamptz not null default now()
);

alter table public.companies force row level security;
alter table public.event_outbox enable row level security;
alter table public.event_outbox force row level security;
alter table public.dead_letter_queue enable row level security;
alter table public.dead_letter_queue force row level security;

alter table public.event_outbox rename column attempts to attempt_count;
alter table public.event_outbox drop column legacy_state;

create or replace function public.bury(p_event bigint, p_error text) returns uuid
language plpgsql security definer set search_path = '' as $$
declare
  v_id uuid;
  v_event public.event_outbox%rowtype;
begin
  select * into v_event from public.event_outbox where id = p_event for update;
  if not found then
    raise exception 'no event %', p_event;
  end if;
  insert into public.dead_letter_queue (company_id, error_type) values (v_event.company_id, p_error)
  returning id into v_id;
  update public.event_outbox set processed_at = now() where id = p_event;
  return v_id;
end;
$$;

create or replace function public.on_signup() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  if new.email is not null and tg_op = 'INSERT' then
    insert into public.companies (name) values (new.email);
  end if;
  new.updated_at := now();
  return new;
end;
$$;
create trigger on_auth_user_created before insert on auth.users for each row execute function public.on_signup();

select cron.schedule('tend', '* * * * *', $$select public.bury(1, 'it''s late; really')$$);

revoke truncate, references, trigger on all tables in schema public from anon, authenticated;
