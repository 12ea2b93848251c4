-- Seconds until this release may take its next step: its last step's audit row is the memory. %(flag)s %(release)s %(bake_s)s
select extract(epoch from max(created_at) + make_interval(secs => %(bake_s)s) - now())::float8 as left_s
from public.audit_logs
where action = 'flag_promoted'
  and created_at > now() - make_interval(secs => %(bake_s)s)
  and metadata ->> 'key' = %(flag)s
  and metadata ->> 'release' = %(release)s;
