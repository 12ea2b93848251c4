-- A tenant, its members, and who may see what.
create extension if not exists "uuid-ossp";
create extension if not exists pgcrypto with schema extensions;
create extension if not exists pg_cron;

create type public.member_role as enum ('owner', 'agent');

create table public.companies (
  id uuid primary key default gen_random_uuid(),
  name text not null,
  created_at timestamptz not null default now()
);

create table public.memberships (
  user_id uuid not null references auth.users (id) on delete cascade,
  company_id uuid not null references public.companies (id) on delete cascade,
  role public.member_role not null default 'agent',
  primary key (user_id, company_id)
);

alter table public.companies enable row level security;
alter table public.memberships enable row level security;

create policy members_see_their_company on public.companies for select to authenticated
  using (id in (select m.company_id from public.memberships m where m.user_id = auth.uid()));
create policy own_memberships on public.memberships for select to authenticated using (user_id = (select auth.uid()));
