-- id: sql/spot/deletes-take-nothing-along
-- claim: No foreign key deletes events, runs, dead letters, effects or audit rows by cascade, turns a tenant's flag or pause into a global one
--   (ON DELETE SET NULL), or empties the event id by which a second effect is refused; and no trigger deletes what still waits.
-- cost: Deleting old runs deletes waiting events; a tenant is deleted, and its flag is on for all; or an old event is, and its replay has
--   a second effect.
-- severity: warn
-- reads: catalogue
-- covers: K06 H06
with {{contract_tables}}, {{contract_parts}}, {{trigger_bodies}}, guarded (table_name, actions, but, only_of) as (
  -- a tenant that is deleted may take its own rows along, but for its audit trail; a null company means everybody
  values ('public.feature_flags', '{n,d}'::"char"[], null, null), ('public.agent_controls', '{n,d}', null, null),
         ('public.audit_logs', '{c,n,d}', null, null), ('public.audit_heads', '{c}', null, null),
         ('public.events', '{c}', 'public.companies', null), ('public.replay_runs', '{c}', 'public.companies', null),
         ('public.event_outbox', '{c}', 'public.companies', null), ('public.agent_tasks', '{c}', 'public.companies', null),
         ('public.dead_letter_queue', '{c}', 'public.companies', null),
         ('public.event_outbox', '{n,d}', null, 'public.event_outbox.event_id'),
         ('public.agent_tasks', '{n,d}', null, 'public.agent_tasks.event_id'),
         ('public.dead_letter_queue', '{n,d}', null, 'public.dead_letter_queue.event_id')
)
select format('%s constraint %s', c.conrelid::regclass, c.conname) as subject,
       format('a row deleted from %s %s', c.confrelid::regclass,
              case c.confdeltype when 'c' then 'takes rows along' else 'empties the column that refers to it' end) as detail,
       pg_get_constraintdef(c.oid) as witness
from guarded g
join pg_constraint c on c.conrelid = to_regclass(g.table_name) and c.contype = 'f' and c.confdeltype = any(g.actions)
where c.confrelid is distinct from to_regclass(g.but)
  -- a column of which it says so, or any of its columns
  and (g.only_of is null or exists (
    select from pg_attribute a where a.attrelid = c.conrelid and a.attname = (parse_ident(g.only_of))[3]
      and a.attnum = any(coalesce(nullif(c.confdelsetcols, '{}'), c.conkey))))
union all
select format('%s trigger %s', t.tgrelid::regclass, t.tgname), format('deletes from %s, whatever waits there', waiting.name), pg_get_triggerdef(t.oid)
from trigger_bodies t
join parts on parts.oid = t.tgrelid and parts.name <> 'public.companies'
join (values ('public.event_outbox', array['public.event_outbox.processed_at', 'public.event_outbox.dead_at']),
             ('public.dead_letter_queue', array['public.dead_letter_queue.status'])) waiting(name, finished)
  on t.body ~ ('\mdelete\s+from\s+(only\s+)?(\w+\.)?"?' || lower((parse_ident(waiting.name))[2]) || '\M')
where t.tgenabled in ('O', 'A') and to_regclass(waiting.name) is not null
  -- what is finished may be cleared away, and what is deleted may be put elsewhere
  and not exists (select from unnest(waiting.finished) f where t.body ~ ('\m' || lower((parse_ident(f))[3]) || '\M'))
  and t.body !~ '\minsert\s+into\M';

-- seen:
select count(*) as seen from pg_attribute
where attrelid in (to_regclass('public.event_outbox'), to_regclass('public.feature_flags'), to_regclass('public.audit_logs')) and attnum > 0;
