backlog as materialized (
  -- how much was waiting at six moments; a large backlog that only fell since its peak is draining
  select array[
    count(*) filter (where inserted_at <= now() - interval '5 minutes' and gone_at > now() - interval '5 minutes'),
    count(*) filter (where inserted_at <= now() - interval '2 minutes' and gone_at > now() - interval '2 minutes'),
    count(*) filter (where inserted_at <= now() - interval '1 minute' and gone_at > now() - interval '1 minute'),
    count(*) filter (where inserted_at <= now() - interval '30 seconds' and gone_at > now() - interval '30 seconds'),
    count(*) filter (where inserted_at <= now() - interval '10 seconds' and gone_at > now() - interval '10 seconds'),
    count(*) filter (where inserted_at <= now() and gone_at > now())
  ] as sizes
  from (select inserted_at, 'infinity'::timestamptz as gone_at from waiting
        union all
        select inserted_at, processed_at from delivered) e
), trend as materialized (
  select max(size) >= 100
     and not bool_or(size > before and n > peak_n)
     and (array_agg(size order by n desc))[1] * 2 <= max(size) as falling
  from (select n, size, lag(size) over (order by n) as before,
               first_value(n) over (order by size desc, n desc) as peak_n
        from backlog, unnest(sizes) with ordinality as s(size, n)) steps
)
