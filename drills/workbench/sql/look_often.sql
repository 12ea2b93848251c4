-- Looks with `replaygate.look` (one row: what is seen, whether that is all) until it is, or for `replaygate.look_s` seconds.
-- Leaves in `replaygate.looks` what changed, each with the time at which the look before it began.
do $look$
declare
  look text := pg_catalog.current_setting('replaygate.look');
  ends timestamptz := pg_catalog.clock_timestamp()
    + pg_catalog.make_interval(secs => pg_catalog.current_setting('replaygate.look_s')::float8);
  before float8;
  began float8;
  seen jsonb;
  last jsonb;
  complete boolean;
  looks jsonb := '[]';
begin
  loop
    before := began;
    began := extract(epoch from pg_catalog.clock_timestamp());
    execute look into seen, complete;
    if seen is distinct from last then
      looks := looks || pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_array(before, began, seen));
      last := seen;
    end if;
    exit when complete or pg_catalog.clock_timestamp() > ends;
    perform pg_catalog.pg_sleep(0.002);
  end loop;
  perform pg_catalog.set_config('replaygate.looks', looks::text, true);
end
$look$
