contract(name) as (
  values ('public.companies'), ('public.events'), ('public.feature_flags'), ('public.replay_budgets'), ('public.edge_rate_limits'),
         ('public.replay_runs'), ('public.audit_logs'), ('public.audit_heads'), ('public.event_outbox'),
         ('public.dead_letter_queue'), ('public.agent_tasks'), ('public.agent_controls')
)
