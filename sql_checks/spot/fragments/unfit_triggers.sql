{{trigger_bodies}}, unfit_triggers as (
  -- its function was emptied: it gives back the row, before anything else
  select t.*, 'does nothing' as why
  from trigger_bodies t
  where tgenabled in ('O', 'A')
    and body ~ '^\s*(declare\M((?!\mbegin\M).)*)?begin\s+(null\s*;\s*)*return\s+(new|old|null|coalesce\s*\(\s*(new|old)\s*,\s*(new|old)\s*\))\s*;'
    -- before a row, what is not given back is left out
    and (tgtype::int & 3 <> 3 or body !~ '\mreturn\s+(null|old)\M')
  union all
  -- it leaves rows out for what is in them; one that looks at other rows may keep duplicates out, or put the row elsewhere
  select t.*, 'leaves rows out'
  from trigger_bodies t
  where tgenabled in ('O', 'A') and tgtype::int & 3 = 3 and body ~ '\mreturn\s+null\M'
    and (body !~ '\m(insert|update|delete|execute|select|exists|perform|call|tg_op)\M'
      -- one that counts others up to a number keeps no duplicate out
      or tgtype::int & 4 <> 0 and body !~ '\m(insert|update|delete|execute|perform|call)\M' and body ~ '\mcount\s*\(.*>=?\s*\d\d')
    and (tgtype::int & 4 <> 0
      -- one that asks for the old row may spare writes that change nothing, or guard rows that have ended
      or tgtype::int & 16 <> 0 and body !~ '\mold\M')
  union all
  -- what resets a limit, or an item that a stopped run did not attempt, stays when it is deleted
  select t.*, 'keeps rows that are deleted'
  from trigger_bodies t
  where tgenabled in ('O', 'A') and tgtype::int & 8 <> 0 and tgrelid in (to_regclass('public.edge_rate_limits'), to_regclass('public.event_outbox'))
    and body !~ '\m(if|case|tg_op|insert|update|delete|execute|perform|call|exception)\M' and tgqual is null
    and body ~ case when tgtype::int & 3 = 3 then '\mreturn\s+null\M|\mraise\M' else '\mraise\M' end
  union all
  -- what is new has ended before anybody worked on it, is never due, empty, or of one tenant, whoever's it was; one that looks at
  -- other rows may end duplicates
  select t.*, 'ends rows as they come, or changes what they say'
  from trigger_bodies t
  where tgenabled in ('O', 'A') and tgtype::int & 7 = 7 and body !~ '\m(select|exists|perform|execute)\M'
    and code ~ ('(;|\m(begin|then|else)\M)\s*new\."?('
      || '(state|status)"?\s*:?=\s*''(completed|done|finished|succeeded|success|processed|resolved|discarded|dropped|cancell?ed)'''
      || '|(next_attempt_at|retry_after|scheduled_at|run_at|start_after|execute_after)"?\s*:?=\s*''infinity'''
      -- one that writes elsewhere may have done the work, or keep the payload there; one of rows that come with an end notes when
      || case when body !~ '\m(insert|call)\M' then '|payload"?\s*:?=\s*(null|''\{\}'')' else '' end
      || case when body !~ '\m(insert|call|status|state)\M' then '|(processed|dead|finished|delivered)_at"?\s*:?=\s*(now|current_)' else '' end
      -- what names no tenant may get one
      || case when code !~ '_id"? is null' then '|(company|tenant)_id"?\s*:?=\s*''[0-9a-f-]{36}''' else '' end || ')')
  union all
  -- the same just after a row came, or it is deleted; one that calls, or writes elsewhere, may have done the work
  select t.*, 'ends or deletes rows that have just come'
  from trigger_bodies t
  join pg_class c on c.oid = t.tgrelid
  cross join lateral (values ('\s+(only\s+)?("?\w+"?\.)?"?' || lower(c.relname) || '\M[^;]*', '\mid"?\s*=\s*new\."?id\M')) o(own, itself)
  where tgenabled in ('O', 'A') and tgtype::int & 7 = 5 and body !~ '\m(insert|call|perform|execute|select|exists)\M'
    and (body ~ ('\mupdate' || own || '\mset\M[^;]*\m(processed|dead|finished|delivered)_at"?\s*=\s*(now|current_|clock_)[^;]*' || itself)
      or body ~ ('\mdelete\s+from' || own || itself))
)
