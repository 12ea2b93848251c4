-- id: sql/spot/letters-can-be-replayed
-- claim: Every dead letter that is pending has a time from which it may be replayed, within a year.
-- cost: No replay takes it but a forced one, and nobody is told why.
-- severity: warn
-- covers: K18
select format('dead letter %s', id) as subject, format('pending, to be replayed from %s on', coalesce(retry_after::text, 'no time')) as detail,
       company_id::text as witness
from public.dead_letter_queue
where status = 'pending' and (retry_after is null or retry_after > now() + interval '1 year') and {{not_excluded}}
limit 1000;

-- seen:
select count(*) as seen from (select from public.dead_letter_queue limit 100) d;
