trigger_bodies as (
  -- triggers of people, with what their functions do: without comments, strings, and what is only said
  select t.*, l.lanname,
         lower(regexp_replace(regexp_replace(regexp_replace(regexp_replace(p.prosrc,
           '/\*.*?\*/', ' ', 'g'), '--[^\n]*', ' ', 'g'), '''[^'']*''', ' ', 'g'),
           '\mraise\s+(debug|log|info|notice|warning)\M', ' ', 'gi')) as body
  from pg_trigger t
  join pg_proc p on p.oid = t.tgfoid
  join pg_language l on l.oid = p.prolang
  where not t.tgisinternal
)
