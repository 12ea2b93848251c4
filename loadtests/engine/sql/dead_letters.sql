-- Dead letters that wait, without those that this gate made itself. $1: ids of seeded items; $2: companies of its drills.
SELECT count(*) AS items
FROM public.dead_letter_queue
WHERE status IN ('pending', 'replaying') AND NOT (id = ANY (%s::uuid[])) AND (company_id = ANY (%s::uuid[])) IS NOT TRUE
