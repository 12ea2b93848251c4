-- The flag's last step. The planner must read slices of time by an index on time: not the whole table, and not tenant by
-- tenant, since a limit would then leave out the last tenants. Counts by tenant use a hash.
with {{step}}
select percent, since, planned, until >= planned as is_over, now() as at,
       set_config('enable_seqscan', 'off', true) as seqscan, set_config('random_page_cost', '100', true) as random,
       set_config('enable_indexonlyscan', 'off', true) as indexonlyscan, set_config('enable_sort', 'off', true) as sort
from step;
