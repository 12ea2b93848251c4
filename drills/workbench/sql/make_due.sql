-- Makes the events of a tenant that wait for their next attempt, after so many at most, due now.
update public.event_outbox set next_attempt_at = now()
where company_id = %s and processed_at is null and dead_at is null and next_attempt_at > now()
  and (claimed_until is null or claimed_until <= now())
  and coalesce(attempts, 0) <= %s
