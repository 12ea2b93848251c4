-- Read back: the rows of the flag that this login sees, and how many of them are not off. %(flag)s
select count(*) as rows, count(*) filter (where enabled is distinct from false) as left_on
from public.feature_flags
where key = %(flag)s;
