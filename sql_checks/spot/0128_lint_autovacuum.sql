-- id: sql/spot/lint-autovacuum
-- claim: Autovacuum is switched off for no table of the contract.
-- cost: Dead rows pile up, and every query of the queue grows slower with them.
-- severity: investigate
-- reads: catalogue
with {{contract_tables}}, {{contract_parts}}
select c.oid::regclass::text as subject,
       format('%s is %s%s', o.option_name, o.option_value, case when c.relkind = 't' then ', of what is stored out of line' end) as detail,
       array_to_string(c.reloptions, ', ') as witness
from parts
join pg_class p on p.oid = parts.oid
join pg_class c on c.oid in (p.oid, p.reltoastrelid)
cross join pg_options_to_table(c.reloptions) o
where o.option_name = 'autovacuum_enabled' and not o.option_value::boolean
   -- a number of dead rows that never comes
   or o.option_name in ('autovacuum_vacuum_threshold', 'autovacuum_vacuum_scale_factor')
      and o.option_value::float8 >= case o.option_name when 'autovacuum_vacuum_threshold' then 100000000 else 10 end
union all
select 'the server', format('%s is off', name), null
from pg_settings where name in ('autovacuum', 'track_counts') and setting = 'off';

-- seen:
with {{contract_tables}}
select count(*) as seen from pg_class c join contract on c.oid = to_regclass(contract.name);
