-- The chain's head is locked from here to the end of the transaction: append last.
SELECT public.append_audit(
  %(action)s, %(actor)s, %(scope)s, %(target_count)s, %(success_count)s, %(failure_count)s, %(metadata)s::jsonb, %(request_id)s
)
