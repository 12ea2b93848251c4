-- Whether an event of these tenants was processed within so many seconds.
select exists (
  select from public.event_outbox
  where company_id = any(%s::uuid[]) and processed_at > clock_timestamp() - make_interval(secs => %s::float8)
)
