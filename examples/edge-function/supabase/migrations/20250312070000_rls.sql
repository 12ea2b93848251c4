-- Row-level security of schema ops: an organisation reads its own rows, the two programs work on all of them.

do $$
declare
  entry record;
begin
  for entry in
    select * from (values
      ('domain_events',   'org_id = (select app.current_org())'),
      ('outbox_messages', 'org_id = (select app.current_org())'),
      ('effects',         'org_id = (select app.current_org())'),
      ('failed_jobs',     'org_id = (select app.current_org())'),
      ('replays',         'org_id = (select app.current_org())'),
      ('throttle',        'split_part(bucket, '':'', 2) = (select app.current_org()::text)'),
      ('audit_trail',     'org_scope = (select app.current_org()::text)')
    ) as t (name, own_rows)
  loop
    execute format('alter table ops.%I enable row level security', entry.name);
    execute format('alter table ops.%I force row level security', entry.name);
    execute format('create policy own_rows on ops.%I for select to authenticated using (%s)', entry.name, entry.own_rows);
    execute format('create policy programs on ops.%I for all to edge_api, edge_relay using (true) with check (true)', entry.name);
  end loop;
end
$$;
