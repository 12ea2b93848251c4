trigger_bodies as (
  -- triggers of people, with what their functions do: without comments (`code`), strings, and what is only said (`body`)
  select t.*, l.lanname, c.code,
         regexp_replace(regexp_replace(c.code, '''[^'']*''', ' ', 'g'), '\mraise\s+(debug|log|info|notice|warning)\M', ' ', 'g') as body
  from pg_trigger t
  join pg_proc p on p.oid = t.tgfoid
  join pg_language l on l.oid = p.prolang
  cross join lateral (
    select lower(regexp_replace(regexp_replace(p.prosrc, '/\*.*?\*/', ' ', 'g'), '--[^\n]*', ' ', 'g')) as code) c
  where not t.tgisinternal
)
