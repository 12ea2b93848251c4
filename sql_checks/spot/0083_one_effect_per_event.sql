-- id: sql/spot/one-effect-per-event
-- claim: No event of the last day has two effects: completed tasks.
-- cost: A customer is charged, mailed or shipped to twice.
-- severity: page
-- covers: K18 L05
with recent as (
  select event_id from public.agent_tasks
  where created_at > now() - interval '1 day' and event_id is not null and status = 'completed' and {{not_excluded}}
    -- with a valid unique index there is nothing to look for
    and not exists (
      select from pg_index i
      join pg_attribute a on a.attrelid = i.indrelid and a.attname = (parse_ident('public.agent_tasks.event_id'))[3]
      left join pg_attribute c on c.attrelid = i.indrelid and c.attname = (parse_ident('public.agent_tasks.company_id'))[3]
      where i.indrelid = to_regclass('public.agent_tasks') and i.indisunique and i.indisvalid and i.indisready and i.indislive and i.indimmediate
        -- of the event alone, or of the event within its tenant
        and (i.indkey[0:i.indnkeyatts - 1] = array[a.attnum]
          or i.indkey[0:i.indnkeyatts - 1] in (array[a.attnum, c.attnum], array[c.attnum, a.attnum]))
        and (i.indpred is null or pg_get_expr(i.indpred, i.indrelid) = format('(%I IS NOT NULL)', a.attname)))
  order by created_at desc {{at_most}}
)
select format('event %s', t.event_id) as subject, 'more than one completed agent task' as detail,
       array_to_string((array_agg(t.id order by t.id))[1:2], ', ') as witness
-- from an array: with an index the planner looks each event up, and without one it hashes them and reads the table once
from unnest(array(select distinct r.event_id from recent r)) as one (event_id)
join public.agent_tasks t on t.event_id = one.event_id and t.status = 'completed'
group by t.event_id having count(*) > 1;

-- seen:
select count(*) as seen from (
  select from public.agent_tasks where created_at > now() - interval '1 day' and event_id is not null and {{not_excluded}} limit 1000
) t;
