-- {{name}}: {{claim}}
do $gate$
#variable_conflict use_column
declare
  gate_row record;
  gate_bad int := 0;
  gate_seen bigint;
begin
  for gate_row in
    select * from (
{{violations}}
    ) violations limit 20
  loop
    gate_bad := gate_bad + 1;
    raise warning '{{name}}: %: %', gate_row.subject, gate_row.detail;
    {{record}}
  end loop;
  select case when count(*) = 1 and bool_and(row_seen ? 'seen') then max((row_seen ->> 'seen')::bigint) else count(*) end
  into gate_seen
  from (
    select to_jsonb(s) as row_seen from (
{{seen}}
    ) s
  ) counted;
  if gate_bad = 0 and coalesce(gate_seen, 0) < {{minimum}} then
    raise warning '{{name}}: % rows seen, {{minimum}} needed', coalesce(gate_seen, 0);
    perform set_config('replaygate.unknown', current_setting('replaygate.unknown') || ' {{name}}', true);
  end if;
end
$gate$;
