-- Held out: written after the guesses, with names as short as they get.
create table orgs (id uuid primary key, nm text);
create table dlq (
  id uuid primary key, org uuid not null references orgs, evt uuid, typ text not null, grp text, pl jsonb not null, err text not null, msg text, n int not null,
  n_max int not null, nxt timestamptz, st text check (st in ('p', 'r', 'ok', 'x')), ts timestamptz not null
);
create table obx (
  id bigserial primary key, evt uuid not null, org uuid not null references orgs, typ text not null, grp text, pl jsonb not null, ts timestamptz not null,
  done_ts timestamptz, dead_ts timestamptz, lock_ts timestamptz, n int not null, nxt timestamptz not null, rpl uuid
);
create table rpl (
  id uuid primary key, idem text not null, org uuid not null references orgs, who text, sum text, st text, tot int, ok int, bad int, t0 timestamptz, t1 timestamptz,
  unique (idem, org)
);
create table ff (k text not null, org uuid, "on" boolean not null, pct int not null, descr text, ts timestamptz, unique nulls not distinct (k, org));
create table usr (id uuid primary key, org uuid, mail text);
create table sess (id uuid primary key, usr uuid, exp timestamptz);
