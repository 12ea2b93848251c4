-- Read back: rows that were there before they were cleared (those that came since are new). %(xid)s
select count(*) as left_on
from public.edge_rate_limits
where key like 'replay:%%' and age(xmin) > age(%(xid)s::xid8::xid);
