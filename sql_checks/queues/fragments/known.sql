{{heap}}, known as (
  -- that there is a queue in use at all: rows that can be read, and those that the server counted
  select (select count(*) from (select from {{any}} limit 100) r)
         + (select coalesce(sum(pg_stat_get_tuples_inserted(h.oid)), 0) from heap h) as n
)
