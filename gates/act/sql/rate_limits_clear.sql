-- The checklist's emergency: replay limits begin anew.
delete from public.edge_rate_limits where key like 'replay:%%';
