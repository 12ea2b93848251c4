-- id: sql/spot/triggers-enabled
-- claim: No trigger on a table of the contract is switched off.
-- cost: A rule that the schema promises is not kept, and nothing says so.
-- severity: warn
-- reads: catalogue
-- covers: I09
with {{contract_tables}}
select contract.name as subject,
       format('trigger %s is %s', t.tgname, case t.tgenabled when 'D' then 'disabled' else 'enabled on replicas only' end) as detail,
       pg_get_triggerdef(t.oid) as witness
from pg_trigger t
join contract on t.tgrelid = to_regclass(contract.name)
where t.tgenabled not in ('O', 'A');

-- seen:
with {{contract_tables}}
select count(*) as seen from pg_class c join contract on c.oid = to_regclass(contract.name);
