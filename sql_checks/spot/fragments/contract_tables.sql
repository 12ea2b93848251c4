contract(name, tenant) as (
  -- a table without a column of the tenant is everybody's, and has no rows to keep apart
  values ('public.companies', 'public.companies.id'), ('public.events', 'public.events.company_id'),
         ('public.feature_flags', 'public.feature_flags.company_id'), ('public.replay_budgets', 'public.replay_budgets.company_id'),
         ('public.edge_rate_limits', 'public.edge_rate_limits.key'), ('public.replay_runs', 'public.replay_runs.company_id'),
         ('public.audit_logs', 'public.audit_logs.scope'), ('public.audit_heads', 'public.audit_heads.scope'),
         ('public.event_outbox', 'public.event_outbox.company_id'), ('public.dead_letter_queue', 'public.dead_letter_queue.company_id'),
         ('public.agent_tasks', 'public.agent_tasks.company_id'), ('public.agent_controls', 'public.agent_controls.company_id')
)
