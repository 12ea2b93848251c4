-- id: sql/spot/letters-can-be-replayed
-- claim: Every pending dead letter has a tenant, has a finite time that is not in the future, counts its retries from 0, and may be
--    replayed within a year at the latest.
-- cost: Only forced replays take it, or more replays than allowed, and nobody is told why.
-- severity: warn
-- covers: K18
select format('dead letter %s', id) as subject,
       case when company_id is null then 'pending, and of no tenant'
            when created_at > now() + interval '30 minutes' or created_at = '-infinity' then format('is of %s, and it is %s', created_at, now())
            when least(retry_count, max_retries) < 0 or num_nulls(retry_count, max_retries) > 0
            then format('%s of %s retries', coalesce(retry_count::text, 'an unknown number'), coalesce(max_retries::text, 'an unknown number'))
            else format('pending, to be replayed from %s on', coalesce(retry_after::text, 'no time')) end as detail,
       company_id::text as witness
from public.dead_letter_queue
where status = 'pending'
  and (company_id is null or (retry_after is null or retry_after > now() + interval '1 year' or created_at > now() + interval '30 minutes' or created_at = '-infinity'
                             or least(retry_count, max_retries) < 0 or num_nulls(retry_count, max_retries) > 0) and {{not_excluded}})
limit 1000;

-- seen:
select count(*) as seen from (select from public.dead_letter_queue limit 100) d;
