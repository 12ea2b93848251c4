-- Audit a refusal, or count it to the row of a later minute. Seconds until the next row of this scope and code may come.
SELECT public.record_refusal(
  %(scope)s, %(code)s, %(refused)s, %(actor)s, %(metadata)s::jsonb, %(request_id)s, %(once_a_minute)s
)
