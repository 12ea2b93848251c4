-- Whether any event was processed within so many seconds.
select exists (
  select from public.event_outbox where processed_at > clock_timestamp() - make_interval(secs => %s::float8)
)
