-- the id after which audit rows are read: the stored checkpoint, at most 10,000 rows back; everything under --deep
case when current_setting('replaygate.deep', true) = 'on' then 0
     else greatest(coalesce((nullif(current_setting('replaygate.checkpoint', true), '')::jsonb ->> 'audit_id')::bigint, 0),
                   (select max(id) from public.audit_logs) - 10000) end
