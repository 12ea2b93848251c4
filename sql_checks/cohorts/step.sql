-- The flag's last step. What follows is to read a slice of time in the order of time, from whatever index on time there is:
-- not from the table's beginning, and not tenant by tenant, of whom a limit would then leave the last ones out. What is
-- counted of a tenant is counted by hash.
with {{step}}
select percent, since, planned, until >= planned as is_over, now() as at,
       set_config('enable_seqscan', 'off', true) as seqscan, set_config('random_page_cost', '100', true) as random,
       set_config('enable_indexonlyscan', 'off', true) as indexonlyscan, set_config('enable_sort', 'off', true) as sort
from step;
