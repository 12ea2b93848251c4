step as materialized (
  -- the flag's last step, the one before it by the plan, what is old enough since then to be judged, and when its bake ends
  select f.percent, f.since, f.until, f.since + f.bake as planned, f.bake,
         coalesce((select max(p.step) from unnest(string_to_array(current_setting('replaygate.steps'), ',')::int[]) p(step)
                   where p.step < f.percent), 0) as percent_before
  from (select case when enabled then rollout_percentage else 0 end as percent, updated_at as since,
               now() - interval '1 minute' as until,
               make_interval(secs => current_setting('replaygate.bake_s')::int) as bake
        from public.feature_flags
        where key = current_setting('replaygate.flag') and company_id is null) f
), slices as materialized (
  -- twelve of equal length in the bake, three since then, and five in the time before the step that is as long as the bake;
  -- of each its beginning stands for all of it. Those of the bake and before it stay the same ones once it is over
  select p.phase, p.since + (p.until - p.since) * n / p.pieces as since, p.since + (p.until - p.since) * (n + 1) / p.pieces as until
  from step s
  cross join lateral (values (0, s.since - s.bake, s.since, 5),
                             (1, s.since, least(s.until, s.planned), 12),
                             (2, s.planned, s.until, 3)) p(phase, since, until, pieces)
  cross join lateral generate_series(0, p.pieces - 1) n
  where s.until > s.since and p.until > p.since
)
