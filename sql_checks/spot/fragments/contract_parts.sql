parts as (
  -- the contract's tables, and their partitions
  select contract.name, c.oid
  from contract
  cross join lateral (
    select to_regclass(contract.name)::oid as oid union select relid from pg_partition_tree(to_regclass(contract.name))) c
)
