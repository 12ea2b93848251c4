audit_low as materialized (
  -- which ids are read. Under --deep all; else what came after the stored checkpoint, and the 1,000 rows before it again
  -- (an id is given before its row commits); without a checkpoint the newest 10,000 rows. By rank, for ids may have gaps.
  select coalesce(case
           when current_setting('replaygate.deep', true) = 'on' then null
           when nullif(current_setting('replaygate.checkpoint', true), '') is not null then
             (select id from public.audit_logs
              where id <= (nullif(current_setting('replaygate.checkpoint', true), '')::jsonb ->> 'last_id')::bigint
              order by id desc offset 999 limit 1)
           else (select id from public.audit_logs order by id desc offset 9999 limit 1)
         end, -9223372036854775808) as low
), audit_range as materialized (
  select low,
         case when current_setting('replaygate.deep', true) = 'on' then null
              else (select id from public.audit_logs where id >= low order by id offset 5999 limit 1) end as low_end,
         coalesce((select id from public.audit_logs order by id desc offset 4999 limit 1), low) as high
  from audit_low
), audit_tail as materialized (
  select a.* from public.audit_logs a
  where a.id between (select low from audit_range) and (select coalesce(low_end, 9223372036854775807) from audit_range)
  union all
  -- more rows than a run reads: the first and the last of them; the next run goes on after the first
  select a.* from public.audit_logs a
  where a.id between (select greatest(high, low_end + 1) from audit_range where low_end is not null) and 9223372036854775807
)
