-- What the audit rows tell about a flag: the percentage of its last step, and the seconds for which it still bakes.
-- A step is the flag's, whichever release took it. What a drill does to a flag has no `to`. Last, whether it was rolled back
-- since a time, whether that time is more than so many minutes ago, and whether the step of a verdict was taken. %(flag)s
-- %(bake_s)s %(since)s %(good_for_min)s %(verdict)s
select
  (select substring(a.metadata ->> 'to' from '^[0-9]{1,3}$')
   from public.audit_logs a
   where a.scope = 'all' and a.metadata ->> 'key' = %(flag)s and a.metadata ? 'to'
   order by a.id desc limit 1) as told,
  (select extract(epoch from max(a.created_at) + make_interval(secs => %(bake_s)s) - now())::float8
   from public.audit_logs a
   where a.action = 'flag_promoted'
     and a.created_at > now() - make_interval(secs => %(bake_s)s)
     and a.metadata ->> 'key' = %(flag)s) as baking_s,
  exists (select from public.audit_logs a
          where a.action = 'flag_rolled_back' and a.created_at >= %(since)s::text::timestamptz
            and a.metadata ->> 'key' = %(flag)s) as rolled_back,
  coalesce(now() - %(since)s::text::timestamptz > make_interval(mins => %(good_for_min)s::int), false) as too_old,
  exists (select from public.audit_logs a
          where a.action = 'flag_promoted' and a.metadata ->> 'key' = %(flag)s
            and a.metadata ->> 'verdict' = %(verdict)s) as taken;
