-- The deployment chains the row itself. %(action)s %(actor)s %(target_count)s %(success_count)s %(metadata)s
insert into public.audit_logs (action, actor, scope, target_count, success_count, failure_count, metadata)
values (%(action)s, %(actor)s, 'all', %(target_count)s, %(success_count)s, 0, %(metadata)s::jsonb)
returning id;
