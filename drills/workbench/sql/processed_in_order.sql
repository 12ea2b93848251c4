-- When each of these events was marked as processed, in the order in which they are given.
select o.event_id::text as event, extract(epoch from o.processed_at) as at, o.xmin::text as tx, o.id
from unnest(%s::uuid[]) with ordinality e(id, n) join public.event_outbox o on o.event_id = e.id order by e.n
