-- The flag's last step. Whatever index on time there is serves what follows, also one that is dear in the planner's eyes.
with {{step}}
select percent, since, now() as at, set_config('enable_seqscan', 'off', true) as planned
from step;
