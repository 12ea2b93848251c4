step as materialized (
  -- the flag's last step, the one before it by the plan, and what is old enough since then to be judged
  select f.percent, f.since, f.until - f.since as length,
         coalesce((select max(p.step) from unnest(string_to_array(current_setting('replaygate.steps'), ',')::int[]) p(step)
                   where p.step < f.percent), 0) as percent_before
  from (select case when enabled then rollout_percentage else 0 end as percent, updated_at as since,
               now() - interval '1 minute' as until
        from public.feature_flags
        where key = current_setting('replaygate.flag') and company_id is null) f
), slices as materialized (
  -- ten of equal length since the step, and ten in as long a time before it; of each its beginning stands for all of it
  select p.is_after, p.start + s.length * n / 10 as since, p.start + s.length * (n + 1) / 10 as until
  from step s
  cross join lateral (values (true, s.since), (false, s.since - s.length)) p(is_after, start)
  cross join generate_series(0, 9) n
  where s.length > interval '0'
)
