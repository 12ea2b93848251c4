--! names
select 'public.unknown', '' from public.schema_migrations
=> select 'public.unknown', '' from public.schema_migrations
select 1 from "public"."events"
=> select 1 from "public"."events"
select count(*) from public.dead_letter_queue where status = 'pending'
=> select count(*) from (select (case state::text when 'waiting' then 'pending' else state::text end) as status from
  ops.failed_jobs) as dead_letter_queue where status = 'pending'
select d.id from public.dead_letter_queue d for update of d skip locked
=> select d.id from (select id from ops.failed_jobs) d for update of d skip locked
select d.aggregate_key, d.xmin from public.dead_letter_queue as d
=> select d.aggregate_key, d.xmin from (select xmin, null::text as aggregate_key from ops.failed_jobs) as d
select key from public.feature_flags
=> select key from (select key from public."Flags") as feature_flags
select owner.id %total from public.dead_letter_queue owner
=> select owner.id %total from (select id from ops.failed_jobs) owner
truncate public.dead_letter_queue
=> truncate ops.failed_jobs
set local role authenticated
=> set local role app_user
select to_regclass('public.feature_flags'), 'public.dead_letter_queue.status', rolname = 'anon', '{public}'
=> select to_regclass('public."Flags"'), 'ops.failed_jobs.state', rolname = 'no role for anon', '{app,ops,public}'
select to_regclass('public.audit_heads')
=> select to_regclass(null::text)
update public.dead_letter_queue set status = 'pending', retry_count = retry_count + 1 where status = 'x'
=> update ops.failed_jobs as dead_letter_queue set state = 'waiting', attempts = dead_letter_queue.attempts + 1
  where (case dead_letter_queue.state::text when 'waiting' then 'pending' else dead_letter_queue.state::text end) =
  'x'
delete from public.dead_letter_queue where id in (select id from old) and exists (select from public.companies c
  where c.id = company_id) returning id
=> delete from ops.failed_jobs as dead_letter_queue where dead_letter_queue.id in (select id from old) and exists
  (select from (select id from app.companies) c where c.id = dead_letter_queue.tenant_id) returning
  dead_letter_queue.id as id
--! parameters | ["f", "7"] | ["7", "f"]
select public.is_feature_enabled(%s, %s::uuid) where 1 %% 2 = 1
=> select app.flag_on(%s::bigint, %s) where 1 %% 2 = 1
--! parameters | {"id": 1, "c": 2, "s": "pending"} | [1, 2, "waiting"]
insert into public.dead_letter_queue (id, company_id, status) values (%(id)s, %(c)s, %(s)s) on conflict (id) do
  update set status = excluded.status returning id
=> insert into ops.failed_jobs as dead_letter_queue (id, tenant_id, state, kind) overriding system value values (%s,
  %s, %s, 'drill') on conflict (id) do update set state = (case ((case excluded.state::text when 'waiting' then
  'pending' else excluded.state::text end))::text when 'pending' then 'waiting' else ((case excluded.state::text
  when 'waiting' then 'pending' else excluded.state::text end))::text end) returning dead_letter_queue.id as id
--! parameters | {"id": 3} | [3]
select 1 from public.dead_letter_queue where id <=%(id)s
=> select 1 from (select id from ops.failed_jobs) as dead_letter_queue where id <=%s
--! parameters | {"retry_count": 3} | [3]
delete from public.dead_letter_queue where retry_count = %(retry_count)s returning id
=> delete from ops.failed_jobs as dead_letter_queue where dead_letter_queue.attempts = %s returning
  dead_letter_queue.id as id
--! parameters | ["a", 1, "b", 2] | [1, 2]
insert into public.dead_letter_queue (error_type, company_id) values (%s, %s), (%s, %s)
=> insert into ops.failed_jobs as dead_letter_queue (tenant_id, kind) values (%s, 'drill'), (%s, 'drill')
--! keys
select public.is_feature_enabled('outbox.enabled', id) from x
=> select app.is_on(id, 'relay.on') from x
--! keys | ["outbox.enabled", "c"] | ["c", "relay.on"]
select public.is_feature_enabled(%s, %s)
=> select app.is_on(%s, %s)
--! keys
select lower(k || ':' || id)
=> select lower((case (k)::text when 'outbox.enabled' then 'relay.on' else (k)::text end) || ':' || id)
select key from public.feature_flags_status
=> select key from (select (case key::text when 'relay.on' then 'outbox.enabled' else key::text end) as key from
  public.feature_flags_status) as feature_flags_status
--! keys | ["replay:c:::1"] | ["replay:c:::1"]
insert into public.edge_rate_limits (key) values (%s)
=> insert into public.throttle as edge_rate_limits (b) values ('redrive:' || substr((%s)::text, 8))
--! keys
insert into public.dead_letter_queue (retry_after) values (null)
=> insert into public.dead_letter_queue as dead_letter_queue (due) values ((null)::timestamptz at time zone 'UTC')
--! keys | ["replay:%"] | ["replay:%"]
delete from public.edge_rate_limits where key like %s
=> delete from public.throttle as edge_rate_limits where ('replay:' || substr(b, 9)) like %s
--! keys
create temporary table t (like public.edge_rate_limits) on commit drop
=> create temporary table t (like public.throttle) on commit drop
--! rows
select key from public.feature_flags f
=> select key from (select key from app.toggles where (gone_at is null)) f
update public.feature_flags f set enabled = false where key = 'a' or true returning 1
=> update app.toggles f set enabled = false where (gone_at is null) and ( f.key = 'a' or true) returning 1
with x as (delete from public.feature_flags) select 1 from x
=> with x as (delete from app.toggles as feature_flags where (gone_at is null)) select 1 from x
update public.feature_flags f set enabled = false returning 1
=> update app.toggles f set enabled = false where (gone_at is null) returning 1
insert into public.feature_flags (key) values ('a')
=> insert into app.toggles as feature_flags (key) values ('a')
--! one each
select hits from public.edge_rate_limits where key = 'k'
=> select hits from (select (concat('replay:', "tenant", ':', "ip")) as key, array_agg(("at")::timestamptz order by
  ("at")::timestamptz) as hits from public.hits where (route = 'replay') group by 1) as edge_rate_limits where key =
  'k'
delete from public.edge_rate_limits where key like 'replay:%'
=> delete from public.hits as edge_rate_limits where (route = 'replay') and ( (concat('replay:', "tenant", ':',
  "ip")) like 'replay:%')
update public.edge_rate_limits set hits = array(select h - x from unnest(hits) h)
=> update public.hits as edge_rate_limits set at = (((array(select h - x from unnest((array["at"]::timestamptz[]))
  h))::text)::timestamptz[])[1] where (route = 'replay')
--! counted
insert into public.edge_rate_limits (key, hits) values ('k', '{}')
=> insert into public.slots as edge_rate_limits (since, n, bucket) select ((array[c.at])::timestamptz[])[1], 1, 'k'
  from unnest('{}') c(at)
select count(*) from public.edge_rate_limits
=> select count(*) from (select bucket as key from public.slots cross join lateral generate_series(1, least(n,
  1000)) group by 1) as edge_rate_limits
select 'public.edge_rate_limits.hits' is null
=> select null::text is null
