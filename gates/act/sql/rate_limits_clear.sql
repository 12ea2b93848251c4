-- The checklist's emergency: clears the replay limits.
delete from public.edge_rate_limits where key like 'replay:%%';
