-- whether the owner of relation c has the rights of an owner of the contract's tables or of their schema, of the owner of the
-- database or of this login, as a superuser has: then its code gains nothing by running with ours
exists (
  select from (
    select unnest(array[t.relowner, n.nspowner]) as oid from pg_class t join pg_namespace n on n.oid = t.relnamespace
    where t.oid in (to_regclass('public.companies'), to_regclass('public.events'), to_regclass('public.feature_flags'),
                    to_regclass('public.replay_budgets'), to_regclass('public.edge_rate_limits'), to_regclass('public.replay_runs'),
                    to_regclass('public.audit_logs'), to_regclass('public.audit_heads'), to_regclass('public.event_outbox'),
                    to_regclass('public.dead_letter_queue'), to_regclass('public.agent_tasks'), to_regclass('public.agent_controls'))
    union select datdba from pg_database where datname = current_database()
    union select oid from pg_roles where rolname = current_user
  ) trusted
  where pg_has_role(c.relowner, trusted.oid, 'MEMBER')
)
