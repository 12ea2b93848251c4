-- id: sql/spot/lint-autovacuum
-- claim: Autovacuum is switched off on no table of the contract.
-- cost: Dead rows pile up, and every query of the queue grows slower with them.
-- severity: investigate
-- reads: catalogue
with {{contract_tables}}
select c.oid::regclass::text as subject, 'autovacuum_enabled is off' as detail, array_to_string(c.reloptions, ', ') as witness
from contract
join pg_class c on c.oid = to_regclass(contract.name)
where exists (select from pg_options_to_table(c.reloptions) o
              where o.option_name = 'autovacuum_enabled' and not o.option_value::boolean);

-- seen:
with {{contract_tables}}
select count(*) as seen from pg_class c join contract on c.oid = to_regclass(contract.name);
