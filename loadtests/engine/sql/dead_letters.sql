-- Dead letters that wait, without those that this run seeded itself. $1: ids of seeded items.
SELECT count(*) AS items
FROM public.dead_letter_queue
WHERE status IN ('pending', 'replaying') AND NOT (id = ANY (%s::uuid[]))
