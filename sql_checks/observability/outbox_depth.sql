-- What is in the outbox now, by state, and how old the oldest of it is.
select case when dead_at is not null then 'dead' when processed_at is not null then 'processed'
            when claimed_until > now() then 'in flight' else 'pending' end as state,
       count(*) as events, now() - min(inserted_at) as oldest
from public.event_outbox
where inserted_at > now() - interval '1 day' or processed_at is null and dead_at is null
group by 1 order by 1;
