-- Read back: the rows that this login sees, and how many of them are not paused.
select count(*) as rows, count(*) filter (where agents_paused is distinct from true) as left_on
from public.agent_controls;
