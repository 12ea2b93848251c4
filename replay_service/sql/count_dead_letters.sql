-- Dead letters that wait or are being replayed.
SELECT status, count(*) FROM public.dead_letter_queue WHERE status IN ('pending', 'replaying') GROUP BY status
