parts as (
  -- the contract's tables, and their partitions and children
  select contract.name, c.oid
  from contract
  cross join lateral (
    with recursive part as (
      select to_regclass(contract.name)::oid as oid
      union
      select i.inhrelid from part join pg_inherits i on i.inhparent = part.oid
    )
    select oid from part) c
)
