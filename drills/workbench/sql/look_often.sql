-- Polls with `replaygate.look` (one row: what is seen, and the step reached) until step `replaygate.look_steps`, or for
-- `replaygate.look_s` seconds without a step. Says each step as soon as it is seen, with INFO, which no setting holds back.
-- Leaves in `replaygate.looks` what changed, each with the times at which the look before it began and this one had ended.
do $look$
declare
  look text := pg_catalog.current_setting('replaygate.look');
  steps integer := pg_catalog.current_setting('replaygate.look_steps')::integer;
  patience interval := pg_catalog.make_interval(secs => pg_catalog.current_setting('replaygate.look_s')::float8);
  ends timestamptz;
  before float8;
  began float8;
  ended float8;
  seen jsonb;
  last jsonb;
  step integer;
  reached integer := -1;
  looks jsonb := '[]';
begin
  loop
    before := began;
    began := extract(epoch from pg_catalog.clock_timestamp());
    execute look into seen, step;
    ended := extract(epoch from pg_catalog.clock_timestamp());
    if seen is distinct from last then
      looks := looks || pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_array(before, ended, seen));
      last := seen;
    end if;
    if step > reached then
      reached := step;
      ends := pg_catalog.clock_timestamp() + patience;
      raise info 'replaygate look %', reached;
    end if;
    exit when reached >= steps or pg_catalog.clock_timestamp() > ends;
    perform pg_catalog.pg_sleep(0.002);
  end loop;
  perform pg_catalog.set_config('replaygate.looks', looks::text, true);
end
$look$
