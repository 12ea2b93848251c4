-- The last steps, rollbacks, pauses and cleared limits, by whom and why.
select created_at, action, actor, metadata ->> 'key' as flag, metadata ->> 'from' as from_percent, metadata ->> 'to' as to_percent,
       metadata ->> 'release' as release, left(metadata ->> 'reason', 200) as reason
from public.audit_logs
where action in ('flag_promoted', 'flag_rolled_back', 'agents_paused', 'rate_limits_cleared')
order by created_at desc, id desc limit 10;
