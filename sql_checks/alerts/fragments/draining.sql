late as materialized (
  select live_since, processed_at from delivered where processed_at - live_since >= interval '5 seconds'
), backlog as materialized (
  -- how much was waiting, every two seconds, of what waited five or still waits: met twice, however short it stood
  select n, sum(sum(change)) over (order by n) as size
  from (select ceil(extract(epoch from at - now()) / 2) as n, change
        from (select live_since as at, 1 as change from waiting
              union all
              select live_since, 1 from late
              union all
              select processed_at, -1 from late) moves_of_events) steps
  group by n
), trend as materialized (
  -- a large backlog that only fell since its peak, but for a twentieth of it, is draining, or drained
  select coalesce(max(size) >= 1000
     and not bool_or(size > lowest + 0.05 * peak)
     and (array_agg(size order by n desc))[1] * 2 <= max(size), false) as falling
  from (select n, size, peak, min(size) filter (where n >= peak_n) over (order by n) as lowest
        from (select n, size, max(size) over () as peak,
                     first_value(n) over (order by size desc, n desc) as peak_n
              from backlog) sizes) since_peak
)
