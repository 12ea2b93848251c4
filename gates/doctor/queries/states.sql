-- The most common values of columns with few states, by the server's own statistics. %(places)s: schema,
-- table and column, joined by a character that no name can have.
select s.schemaname as schema, s.tablename as name, s.attname as column,
       (s.most_common_vals::text::text[])[1:20] as held
from pg_catalog.pg_stats s
where concat_ws(e'\x01', s.schemaname, s.tablename, s.attname) = any(%(places)s)
  and s.n_distinct between 1 and 20;
