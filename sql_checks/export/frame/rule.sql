-- {{name}}: {{claim}}
do $gate$
#variable_conflict use_column
declare
  gate_row record;
  gate_fleets int := 0;
begin
  for gate_row in
    select j.*, case
             when samples < case subject when 'all' then {{min_samples}} else {{min_samples_tenant}} end
               then 'few'
             when value is null or value = 'NaN' or value not between {{low}} and {{high}}
               or newest > now() + interval '{{future_s}} seconds'{{stale}} then 'unknown'
{{levels}}
             else 'ok' end as state
    from (
      select q.subject, q.value::float8 as value, coalesce(q.samples, 0) as samples, q.newest, q.witness::text as witness,
             coalesce((to_jsonb(q) ->> 'draining')::boolean, false) as draining
      from (
{{query}}
      ) q
    ) j
  loop
    gate_fleets := gate_fleets + (gate_row.subject = 'all')::int;
    if gate_row.state = 'page' and gate_row.draining then
      gate_row.state := 'warn';
    end if;
    if gate_row.state in ('page', 'warn', 'investigate') then
      raise warning '{{name}} of %: % {{unit}} (%, % samples, %)',
        gate_row.subject, gate_row.value, gate_row.state, gate_row.samples, gate_row.witness;
    end if;
    if gate_row.state in ('page', 'warn') then
      perform set_config('replaygate.bad',
        current_setting('replaygate.bad') || format(' {{name}}/%s (%s: %s)', gate_row.state, gate_row.subject, gate_row.value), true);
    elsif gate_row.state = 'unknown' or gate_row.state = 'few' and gate_row.subject = 'all' then
      perform set_config('replaygate.unknown', current_setting('replaygate.unknown') || ' {{name}}', true);
    end if;
  end loop;
  if gate_fleets <> 1 then
    perform set_config('replaygate.unknown', current_setting('replaygate.unknown') || ' {{name}}', true);
  end if;
end
$gate$;
