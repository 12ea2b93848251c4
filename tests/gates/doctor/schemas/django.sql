-- In the style of Django: an application's prefix, one schema, uuid ids, foreign keys named by their model, CHECKs on states.
create table core_account (id uuid primary key default gen_random_uuid(), display_name varchar(200) not null);
create table auth_user (id serial primary key, username varchar(150) not null, password varchar(128) not null);
create table django_migrations (id serial primary key, app varchar(255), name varchar(255), applied timestamptz);
create table django_session (session_key varchar(40) primary key, session_data text, expire_date timestamptz);
create domain failure_code as varchar(100);
create table delivery_deadletter (
  id uuid primary key default gen_random_uuid(), account_id uuid not null references core_account, source_event_id uuid,
  kind varchar(100) not null, ordering_key varchar(200), body jsonb not null, failure_code failure_code not null, last_error text,
  tries integer not null default 0 check (tries >= 0), retry_limit integer not null default 5, not_before timestamptz not null default now(),
  status varchar(20) not null check (status in ('new', 'retrying', 'recovered', 'ignored')), date_created timestamptz not null default now()
);
create table delivery_outboxentry (
  id bigserial primary key, event_uuid uuid not null, account_id uuid not null references core_account, kind varchar(100) not null,
  ordering_key varchar(200), body jsonb not null, date_created timestamptz not null default now(), sent_at timestamptz,
  abandoned_at timestamptz, lease_expires_at timestamptz, tries integer not null default 0, available_at timestamptz not null default now()
);
create table delivery_domainevent (
  id uuid primary key, account_id uuid not null references core_account, kind varchar(100) not null, ordering_key varchar(200),
  body jsonb not null, channel varchar(10) check (channel in ('async', 'sync')), date_created timestamptz not null default now()
);
create table delivery_replaybatch (
  id uuid primary key, request_key varchar(200) not null, account_id uuid not null references core_account, initiated_by varchar(200),
  fingerprint varchar(64), phase varchar(20) check (phase in ('active', 'finished', 'aborted', 'errored')), size integer,
  successes integer, failures integer, submitted_at timestamptz, ended_at timestamptz,
  constraint replay_once unique (request_key, account_id)
);
create table delivery_usagequota (
  account_id uuid primary key references core_account, per_day integer not null, per_month integer not null, used_today integer not null,
  used_this_month integer not null, usage_date date not null, usage_month date not null
);
create table flags_featureswitch (
  id serial primary key, name varchar(100) not null, account_id uuid references core_account, is_enabled boolean not null,
  rollout smallint not null default 100, comment text, modified_at timestamptz not null
);
create table bots_botrun (
  id bigserial primary key, account_id uuid not null references core_account, handler varchar(100) not null, source_event_id uuid unique,
  status varchar(20) check (status in ('scheduled', 'executing', 'done', 'errored')), date_created timestamptz, modified_at timestamptz
);
create table blog_article (id serial primary key, title varchar(200), body text, slug varchar(100), author_id integer references auth_user);
