-- id: sql/spot/workers-see-old-rows
-- claim: No policy hides from service and worker, by age, attempts, content or one tenant's name alone, what is still to be delivered or
--   replayed; none hides everything, and a policy shows the worker the rows of the outbox that it may change.
-- cost: What waits for longer, over a pause or a backlog, is never delivered, and nobody sees it wait.
-- severity: warn
-- reads: catalogue
-- covers: K09 K18
with waiting(name, age, finished, content) as (
  values ('public.event_outbox', (parse_ident('public.event_outbox.inserted_at'))[3],
          array[(parse_ident('public.event_outbox.processed_at'))[3], (parse_ident('public.event_outbox.dead_at'))[3]],
          array[(parse_ident('public.event_outbox.attempts'))[3], (parse_ident('public.event_outbox.payload'))[3],
                (parse_ident('public.event_outbox.aggregate_key'))[3], (parse_ident('public.event_outbox.event_type'))[3],
                (parse_ident('public.event_outbox.next_attempt_at'))[3], (parse_ident('public.event_outbox.replay_run_id'))[3]]),
         ('public.dead_letter_queue', (parse_ident('public.dead_letter_queue.created_at'))[3],
          array[(parse_ident('public.dead_letter_queue.status'))[3]],
          array[(parse_ident('public.dead_letter_queue.retry_count'))[3], (parse_ident('public.dead_letter_queue.payload'))[3],
                (parse_ident('public.dead_letter_queue.error_type'))[3], (parse_ident('public.dead_letter_queue.event_type'))[3],
                (parse_ident('public.dead_letter_queue.error_message'))[3], (parse_ident('public.dead_letter_queue.aggregate_key'))[3],
                (parse_ident('public.dead_letter_queue.retry_after'))[3]])
), shown as (
  select w.name, r.rolname, p.polname, p.polpermissive, x.expression,
         coalesce((x.expression ~ format('\m%s\M', w.age)
             and x.expression ~* '\m(now|clock_timestamp|statement_timestamp|transaction_timestamp)\(|\m(current_date|current_timestamp|localtimestamp)\M'
             or exists (select from unnest(w.content) c where x.expression ~ format('\m%s\M', c))
             -- or by one tenant's name
             or exists (select from unnest('{company_id,tenant_id}'::text[]) c where x.expression ~ format('\m%s\M\W*(<>|=) ''', c)))
           -- what is finished may be out of sight
           and not exists (select from unnest(w.finished) f where x.expression ~ format('\m%s\M', f)), false) as hides
  from waiting w
  join pg_policy p on p.polrelid = to_regclass(w.name) and p.polcmd in ('r', 'w', '*')
  join pg_roles r on r.rolname in ('replay_service', 'replay_worker') and not r.rolbypassrls and not r.rolsuper
    and (0 = any(p.polroles) or exists (select from unnest(p.polroles) o where o <> 0 and pg_has_role(r.oid, o, 'MEMBER')))
  cross join lateral (select pg_get_expr(p.polqual, p.polrelid) as expression) x
), bound as (
  -- who changes the rows of a table itself, and whom its policies bind
  select w.name, c.oid as table_oid, r.oid, r.rolname
  from waiting w
  join pg_class c on c.oid = to_regclass(w.name) and c.relrowsecurity
  join pg_roles r on r.rolname in ('replay_service', 'replay_worker') and not r.rolbypassrls and not r.rolsuper
    and has_any_column_privilege(r.oid, c.oid, 'UPDATE') and (c.relforcerowsecurity or not pg_has_role(r.oid, c.relowner, 'USAGE'))
  where not exists (
    select from pg_proc f
    where f.prosecdef and has_function_privilege(r.oid, f.oid, 'EXECUTE') and f.prosrc ~ ('\m' || regexp_replace(c.relname, '\W', '.', 'g') || '\M'))
), applied as (
  select b.*, p.polname, p.polpermissive, pg_get_expr(p.polqual, p.polrelid) as expression
  from bound b
  join pg_policy p on p.polrelid = b.table_oid and p.polcmd in ('r', '*')
    and (0 = any(p.polroles) or exists (select from unnest(p.polroles) o where o <> 0 and pg_has_role(b.oid, o, 'MEMBER')))
)
select format('%s policy %s', name, polname) as subject, format('shows %s only a part of what waits', rolname) as detail, expression as witness
from shown s
where hides and not (polpermissive and exists (
  select from shown o where o.name = s.name and o.rolname = s.rolname and o.polpermissive and not o.hides))
union all
select format('%s policy %s', name, polname), format('hides every row from %s', rolname), expression
from applied where not polpermissive and expression = 'false'
union all
select name, format('%s may change its rows, and no policy shows it one', rolname), null
from bound b
where name = 'public.event_outbox' and rolname = 'replay_worker'
  and not exists (select from applied a where a.polpermissive and (a.name, a.oid) = (b.name, b.oid));

-- seen:
select count(*) as seen from pg_policy
where polrelid in (to_regclass('public.event_outbox'), to_regclass('public.dead_letter_queue'));
