-- Events that were acknowledged and have no business row. $1: ids of events.
SELECT count(*) AS lost, min(a.event_id::text) AS first, pg_is_in_recovery() AS is_behind
FROM unnest(%s::uuid[]) AS a (event_id)
WHERE NOT EXISTS (SELECT FROM public.events e WHERE e.id = a.event_id)
