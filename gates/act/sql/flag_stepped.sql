-- Whether the flag took a step, or was switched on, since a time. %(flag)s %(since)s
select exists (select from public.audit_logs a
               where a.action = 'flag_promoted' and a.created_at >= %(since)s::text::timestamptz
                 and a.metadata ->> 'key' = %(flag)s) as stepped;
