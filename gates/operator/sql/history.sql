-- What hands and gates did to the flag: the audit rows about it, the newest first. %(flag)s %(most)s
select a.created_at, a.action, a.actor,
       coalesce(a.metadata ->> 'release', '') as release,
       coalesce(a.metadata ->> 'from', '') as before,
       coalesce(a.metadata ->> 'to', '') as after,
       coalesce(a.metadata ->> 'reason', '') as reason
from public.audit_logs a
where a.scope = 'all' and a.metadata ->> 'key' = %(flag)s and a.action like 'flag\_%%'
order by a.id desc
limit %(most)s;
