-- A queue of your own, here the table work_items, in the words of River's. Change what is behind each `as`.
create schema judged;
create view judged.river_job as
select j.id, j.kind, 'default' as queue, j.body as args, '{}'::jsonb as metadata, null::jsonb[] as errors,
       case j.status when 'new' then case when j.tries = 0 then 'available' else 'retryable' end
                     when 'taken' then 'running'
                     when 'done' then 'completed'
                     when 'dead' then 'discarded'
                     else j.status end as state,
       j.tries as attempt,
       10 as max_attempts,
       j.made_at as created_at,
       j.not_before as scheduled_at,                                         -- when it is due
       j.taken_at as attempted_at,
       j.ended_at as finalized_at
from public.work_items j;
create view judged.river_migration as select 'main' as line, 1 as version;   -- no leader and no pauses
