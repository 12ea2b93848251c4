-- schema: pg_catalog
-- The functions of pgmq that migrations call, and a table for each queue. Nothing is ever delivered.
create schema pgmq;
create type pgmq.message_record as (
  msg_id bigint, read_ct integer, enqueued_at timestamptz, vt timestamptz, message jsonb
);
create type pgmq.metrics_result as (
  queue_name text, queue_length bigint, newest_msg_age_sec integer, oldest_msg_age_sec integer, total_messages bigint,
  scrape_time timestamptz, queue_visible_length bigint
);
create type pgmq.queue_record as (
  queue_name varchar, is_partitioned boolean, is_unlogged boolean, created_at timestamptz
);
create table pgmq.meta (
  queue_name varchar primary key, is_partitioned boolean not null default false, is_unlogged boolean not null default false,
  created_at timestamptz not null default now()
);
create function pgmq.create(queue_name text) returns void
language plpgsql as $$
begin
  execute format(
    'create table if not exists pgmq.%I (msg_id bigint generated always as identity primary key, read_ct integer not '
    'null default 0, enqueued_at timestamptz not null default now(), vt timestamptz not null, message jsonb)',
    'q_' || queue_name);
  execute format('create table if not exists pgmq.%I (like pgmq.%I, archived_at timestamptz not null default now())',
    'a_' || queue_name, 'q_' || queue_name);
  insert into pgmq.meta (queue_name) values (queue_name) on conflict do nothing;
end $$;
create function pgmq.send(queue_name text, msg jsonb) returns setof bigint language sql as $$ select 0::bigint $$;
create function pgmq.send(queue_name text, msg jsonb, delay integer) returns setof bigint language sql as $$ select 0::bigint $$;
create function pgmq.send(queue_name text, msg jsonb, delay timestamptz) returns setof bigint language sql as $$ select 0::bigint $$;
create function pgmq.send(queue_name text, msg jsonb, headers jsonb) returns setof bigint language sql as $$ select 0::bigint $$;
create function pgmq.send(queue_name text, msg jsonb, headers jsonb, delay integer) returns setof bigint language sql as $$ select 0::bigint $$;
create function pgmq.send(queue_name text, msg jsonb, headers jsonb, delay timestamptz) returns setof bigint language sql as $$ select 0::bigint $$;
create function pgmq.send_batch(queue_name text, msgs jsonb[]) returns setof bigint language sql as $$ select 0::bigint from unnest(msgs) $$;
create function pgmq.send_batch(queue_name text, msgs jsonb[], delay integer) returns setof bigint language sql as $$ select 0::bigint from unnest(msgs) $$;
create function pgmq.send_batch(queue_name text, msgs jsonb[], delay timestamptz) returns setof bigint language sql as $$ select 0::bigint from unnest(msgs) $$;
create function pgmq.send_batch(queue_name text, msgs jsonb[], headers jsonb[]) returns setof bigint language sql as $$ select 0::bigint from unnest(msgs) $$;
create function pgmq.send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay integer) returns setof bigint language sql as $$ select 0::bigint from unnest(msgs) $$;
create function pgmq.send_batch(queue_name text, msgs jsonb[], headers jsonb[], delay timestamptz) returns setof bigint language sql as $$ select 0::bigint from unnest(msgs) $$;
create function pgmq.read(queue_name text, vt integer, qty integer, conditional jsonb default '{}')
returns setof pgmq.message_record language sql as $$ select null::pgmq.message_record where false $$;
create function pgmq.read_with_poll(
  queue_name text, vt integer, qty integer, max_poll_seconds integer default 5, poll_interval_ms integer default 100,
  conditional jsonb default '{}'
) returns setof pgmq.message_record language sql as $$ select null::pgmq.message_record where false $$;
create function pgmq.pop(queue_name text) returns setof pgmq.message_record language sql as $$ select null::pgmq.message_record where false $$;
create function pgmq.set_vt(queue_name text, msg_id bigint, vt integer) returns setof pgmq.message_record language sql as $$ select null::pgmq.message_record where false $$;
create function pgmq.delete(queue_name text, msg_id bigint) returns boolean language sql as $$ select true $$;
create function pgmq.delete(queue_name text, msg_ids bigint[]) returns setof bigint language sql as $$ select unnest(msg_ids) $$;
create function pgmq.archive(queue_name text, msg_id bigint) returns boolean language sql as $$ select true $$;
create function pgmq.archive(queue_name text, msg_ids bigint[]) returns setof bigint language sql as $$ select unnest(msg_ids) $$;
create function pgmq.purge_queue(queue_name text) returns bigint language sql as $$ select 0::bigint $$;
create function pgmq.drop_queue(queue_name text) returns boolean language sql as $$ select true $$;
create function pgmq.detach_archive(queue_name text) returns void language sql as $$ select $$;
create function pgmq.create_non_partitioned(queue_name text) returns void language sql as $$ select pgmq."create"(queue_name) $$;
create function pgmq.create_unlogged(queue_name text) returns void language sql as $$ select pgmq."create"(queue_name) $$;
create function pgmq.create_partitioned(
  queue_name text, partition_interval text default '10000', retention_interval text default '100000'
) returns void language sql as $$ select pgmq."create"(queue_name) $$;
create function pgmq.metrics(queue_name text) returns pgmq.metrics_result language sql as $$ select null::pgmq.metrics_result $$;
create function pgmq.metrics_all() returns setof pgmq.metrics_result language sql as $$ select null::pgmq.metrics_result where false $$;
create function pgmq.list_queues() returns setof pgmq.queue_record language sql as $$
  select queue_name, is_partitioned, is_unlogged, created_at from pgmq.meta
$$;
grant usage, create on schema pgmq to public;
grant select, insert on pgmq.meta to public;
