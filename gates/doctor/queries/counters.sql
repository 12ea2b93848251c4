-- Functions of the deployment whose text names a table, and that write: their text, cut.
select format('%%s.%%s', n.nspname, p.proname) as name, substr(p.prosrc, 1, 4000) as source
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'
  and octet_length(p.prosrc) < 20000
  and position(lower(%(table)s) in lower(p.prosrc)) > 0 and p.prosrc ~* '\minsert\M'
order by p.oid
limit 20;
