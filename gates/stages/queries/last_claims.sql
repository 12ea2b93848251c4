-- The claims in the audit row of a gate's last change of the flag. %(flag)s
select a.metadata -> 'claims' as claims,
       coalesce(a.metadata ->> 'release', '') as release,
       to_char(a.created_at at time zone 'UTC', 'YYYY-MM-DD') as day
from public.audit_logs a
where a.scope = 'all'
  and a.action in ('flag_promoted', 'flag_rolled_back')
  and a.metadata ->> 'key' = %(flag)s
  and a.metadata ? 'claims'
order by a.id desc
limit 1;
