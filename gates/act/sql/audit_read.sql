-- Read back: the row as others look for it. %(id)s %(action)s %(kept)s
select id from public.audit_logs
where id = %(id)s and action = %(action)s and scope = 'all' and metadata @> %(kept)s::jsonb;
