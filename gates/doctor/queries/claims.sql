-- Functions of the deployment that read what a request says of itself: their text, cut. Not those of who hosts it.
select substr(p.prosrc, 1, 2000) as source
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'
  and n.nspname <> all (%(platform)s::text[])
  and octet_length(p.prosrc) < 20000
  and (p.prosrc like '%%request.jwt%%' or p.prosrc like '%%auth.jwt%%' or p.prosrc like '%%auth.uid%%' or p.prosrc like '%%current_setting(%%')
order by p.oid
limit 100;
