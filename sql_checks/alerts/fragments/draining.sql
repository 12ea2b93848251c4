backlog as materialized (
  -- how much was waiting at eight moments; a large backlog that only fell since its peak is draining, or drained
  select n, count(e.live_since) as size
  from unnest(array[570, 420, 300, 120, 60, 30, 10, 0]) with ordinality as moments(seconds_ago, n)
  left join (select live_since, 'infinity'::timestamptz as gone_at from waiting
             union all
             select live_since, processed_at from delivered) e
    on e.live_since <= now() - make_interval(secs => seconds_ago)
   and e.gone_at > now() - make_interval(secs => seconds_ago)
  group by n
), trend as materialized (
  select max(size) >= 1000
     and not bool_or(n > peak_n and size > before)
     and (sum(size) filter (where n = 8)) * 2 <= max(size)
     as falling
  from (select n, size, lag(size) over (order by n) as before,
               first_value(n) over (order by size desc, n desc) as peak_n
        from backlog) steps
)
