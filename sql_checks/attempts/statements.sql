-- Runs the statements of `replaygate.attempts` one by one and writes their results into `replaygate.attempted`.
-- Once a lock of another session was waited for in vain, the others wait for a moment only, and the error says who holds locks.
-- Each is undone unless it says `keep`; `see` counts what the tenant sees before that, `look` what the login sees. Whatever is computed under a tenant's role or path, is computed before it is set.
do $attempts$
declare
  asked jsonb;
  done jsonb := '[]';
  statement text;
  enter text;
  claims text;
  path text;
  look text;
  see text;
  login text;
  held text;
  exempt boolean;
  keep boolean;
  entered boolean;
  through boolean;
  touched bigint;
  looked bigint;
  state text;
  said text;
  place text;
begin
  for asked in select value from pg_catalog.jsonb_array_elements(pg_catalog.current_setting('replaygate.attempts')::jsonb) loop
    statement := asked ->> 'statement';
    enter := asked ->> 'enter';
    claims := asked ->> 'claims';
    path := asked ->> 'path';
    look := asked ->> 'look';
    see := asked ->> 'see';
    login := pg_catalog.current_setting('role');
    exempt := (asked ->> 'exempt')::boolean;
    keep := (asked ->> 'keep')::boolean;
    entered := false;
    through := false;
    touched := 0;
    state := '';
    said := '';
    place := '';
    begin
      if enter is not null then
        execute enter;
        entered := true;
        if claims is not null then
          perform pg_catalog.set_config(asked ->> 'setting', claims, true);
        end if;
        if exempt then
          perform pg_catalog.set_config('row_security', 'off', true);
        end if;
        perform pg_catalog.set_config('search_path', path, true);
      end if;
      if (asked ->> 'read_only')::boolean then
        perform pg_catalog.set_config('transaction_read_only', 'on', true);
      end if;
      execute statement;
      get diagnostics touched = row_count;
      if see is not null then
        execute see;
        get diagnostics looked = row_count;
        touched := touched + looked;
      end if;
      if look is not null then
        perform pg_catalog.set_config('role', login, true), pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        execute look;
        get diagnostics looked = row_count;
        touched := touched + looked;
      end if;
      if not keep then
        through := true;
        raise exception using errcode = 'RG001';
      end if;
    exception when others then
      if not through then
        get stacked diagnostics state = returned_sqlstate, said = message_text, place = pg_exception_context;
        if state = '55P03' then
          if held is null then
            perform pg_catalog.set_config('lock_timeout', '10ms', true);
            held := coalesce(': ' || {{lock_holders}}, '');
          end if;
          said := said || held;
        end if;
        said := pg_catalog.left(said, 1000);
        place := pg_catalog.left(place, 1000);
        touched := 0;
      end if;
    end;
    done := done || pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_array(entered, touched, state, said, place));
  end loop;
  perform pg_catalog.set_config('replaygate.attempted', done::text, true);
end
$attempts$
