-- After a rollback: what is still in flight, what is held, and what is half replayed. %(flag)s
select
  (select count(*) from public.event_outbox
   where processed_at is null and dead_at is null and claimed_until > now()) as in_flight,
  (select count(*) from public.event_outbox
   where processed_at is null and dead_at is null
     and (claimed_until is null or claimed_until <= now())
     and not public.is_feature_enabled(%(flag)s, company_id)) as held,
  (select count(*) from public.dead_letter_queue d
   where d.status = 'replaying'
     and not exists (select from public.event_outbox o
                     where o.event_id = d.event_id and o.processed_at is null and o.dead_at is null)) as half_replayed;
