-- The budget's ledger equals the items moved in the current UTC day and month; the rate limit's rows hold the calls
-- of the last five minutes. The limits are the checklist's own example of a custom budget.

insert into public.replay_budgets (company_id, daily_limit, monthly_limit, daily_used, monthly_used)
select
    current_setting('seed.company')::uuid, 1000, 20000,
    coalesce(sum(items) filter (where requested_at at time zone 'UTC' >= date_trunc('day', now() at time zone 'UTC')), 0),
    coalesce(sum(items) filter (where requested_at at time zone 'UTC' >= date_trunc('month', now() at time zone 'UTC')), 0)
from seed_runs;

-- One row an address: operators 0 to 4 replayed, operator 5 made dry runs (audit.sql).
insert into public.edge_rate_limits (key, hits)
select
    'replay:' || lower(current_setting('seed.company')) || ':192.0.2.' || 10 + operator,
    array_agg(at order by at)
from (
    select operator, requested_at as at from seed_runs where requested_at > now() - interval '5 minutes'
    union all
    select 5, now() - make_interval(secs => 100 + 10 * call) from generate_series(1, 3) as call
) as calls
group by operator;
