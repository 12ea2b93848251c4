{{trigger_bodies}}, toothed as (
  -- enabled triggers that can refuse: their function raises, asks or runs something, or leaves the row out
  select t.*
  from trigger_bodies t
  where t.tgenabled in ('O', 'A') and pg_get_triggerdef(t.oid) !~ ' WHEN \(+false\)+ EXECUTE '
    and (t.lanname <> 'plpgsql'
      or t.body ~ '\m(raise|assert|perform|execute|call|select|insert|update|delete)\M'
      or t.tgtype::int & 3 = 3 and t.body ~ '\mreturn\s+(null|old)\M'
      -- a function of the deployment's own may raise
      or exists (
        select from regexp_matches(replace(t.body, 'pg_catalog.', ''), '([a-z_][a-z0-9_.]*)\s*\(', 'g') called(names)
        where called.names[1] not in (select word from pg_get_keywords()) and called.names[1] not in ('elsif', 'elseif')
          and not exists (select from pg_proc b where b.pronamespace = 'pg_catalog'::regnamespace and b.proname = called.names[1])))
)
