-- Events that were acknowledged and have no business row. $1: ids of events.
SELECT count(*) AS lost, min(a.id::text) AS first, pg_is_in_recovery() AS is_behind
FROM unnest(%s::uuid[]) AS a (id)
WHERE NOT EXISTS (SELECT FROM public.events e WHERE e.id = a.id)
