-- id: sql/spot/one-effect-per-event
-- claim: No event of the last day has two effects: completed tasks.
-- cost: A customer is charged, mailed or shipped to twice.
-- severity: page
-- covers: K18 L05
with recent as (
  select id, event_id from public.agent_tasks
  where created_at > now() - interval '1 day' and event_id is not null and status = 'completed' and {{not_excluded}}
    -- with a valid unique index there is nothing to look for
    and not exists (
      select from pg_index i
      join pg_attribute a on a.attrelid = i.indrelid and a.attname = (parse_ident('public.agent_tasks.event_id'))[3]
      left join pg_attribute c on c.attrelid = i.indrelid and c.attname = (parse_ident('public.agent_tasks.company_id'))[3]
      where i.indrelid = to_regclass('public.agent_tasks') and i.indisunique and i.indisvalid and i.indimmediate
        -- of the event alone, or of the event within its tenant
        and (i.indkey[0:i.indnkeyatts - 1] = array[a.attnum]
          or i.indkey[0:i.indnkeyatts - 1] in (array[a.attnum, c.attnum], array[c.attnum, a.attnum]))
        and (i.indpred is null or pg_get_expr(i.indpred, i.indrelid) = format('(%I IS NOT NULL)', a.attname)))
  order by created_at desc {{at_most}}
)
select format('event %s', r.event_id) as subject, 'more than one completed agent task' as detail,
       format('%s, %s', twin.id, r.id) as witness
from recent r
-- one look-up a row: a join would read the whole table
cross join lateral (
  select t.id from public.agent_tasks t where t.event_id = r.event_id and t.id <> r.id and t.status = 'completed' limit 1
) twin;

-- seen:
select count(*) as seen from (
  select from public.agent_tasks where created_at > now() - interval '1 day' and event_id is not null and {{not_excluded}} limit 1000
) t;
