-- Dead letters to replay: their ids, their companies in the same order, then event type.
INSERT INTO public.dead_letter_queue (id, company_id, event_type, payload, error_type, created_at)
SELECT t.id, t.company_id, %s, '{}'::jsonb, 'load', now() - interval '1 hour'
FROM unnest(%s::uuid[], %s::uuid[]) AS t (id, company_id)
