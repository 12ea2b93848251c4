toothed as (
  -- enabled triggers that can refuse: their function raises, asks or runs something, or leaves the row out
  select t.*
  from pg_trigger t
  join pg_proc p on p.oid = t.tgfoid
  join pg_language l on l.oid = p.prolang
  cross join lateral (
    -- without comments, strings, and what is only said
    select lower(regexp_replace(regexp_replace(regexp_replace(regexp_replace(p.prosrc,
             '/\*.*?\*/', ' ', 'g'), '--[^\n]*', ' ', 'g'), '''[^'']*''', ' ', 'g'),
             '\mraise\s+(debug|log|info|notice|warning)\M', ' ', 'gi')) as text
  ) body
  where not t.tgisinternal and t.tgenabled in ('O', 'A') and pg_get_triggerdef(t.oid) !~ ' WHEN \(+false\)+ EXECUTE '
    and (l.lanname <> 'plpgsql'
      or body.text ~ '\m(raise|assert|perform|execute|call|select|insert|update|delete)\M'
      or t.tgtype::int & 3 = 3 and body.text ~ '\mreturn\s+(null|old)\M'
      -- a function of the deployment's own may raise
      or exists (
        select from regexp_matches(replace(body.text, 'pg_catalog.', ''), '([a-z_][a-z0-9_.]*)\s*\(', 'g') called(names)
        where called.names[1] not in (select word from pg_get_keywords()) and called.names[1] not in ('elsif', 'elseif')
          and not exists (select from pg_proc b where b.pronamespace = 'pg_catalog'::regnamespace and b.proname = called.names[1])))
)
