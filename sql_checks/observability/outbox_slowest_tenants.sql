-- The ten tenants whose oldest undelivered event is the oldest.
select o.company_id, c.name, count(*) as waiting, now() - min(o.inserted_at) as oldest
from public.event_outbox o left join public.companies c on c.id = o.company_id
where o.processed_at is null and o.dead_at is null
group by o.company_id, c.name order by min(o.inserted_at) limit 10;
