contract(name) as (
  values ('companies'), ('events'), ('feature_flags'), ('replay_budgets'), ('edge_rate_limits'), ('replay_runs'),
         ('audit_logs'), ('audit_heads'), ('event_outbox'), ('dead_letter_queue'), ('agent_tasks'), ('agent_controls')
)
