-- id: sql/spot/triggers-enabled
-- claim: No trigger on a table of the contract is switched off, emptied or restricted so that it misses writes, and
--    no rule does more than the statement says.
-- cost: A rule that the schema promises is not kept, or one that nobody knows of is; nothing says so.
-- severity: warn
-- reads: catalogue
-- covers: I09
with {{contract_tables}}, {{contract_parts}}, {{unfit_triggers}}
select parts.name as subject,
       format('trigger %s is %s', t.tgname, case t.tgenabled when 'D' then 'disabled' else 'enabled on replicas only' end) as detail,
       pg_get_triggerdef(t.oid) as witness
from pg_trigger t
join parts on t.tgrelid = parts.oid
where t.tgenabled not in ('O', 'A')
union all
select parts.name, format('trigger %s %s', t.tgname, t.why), pg_get_triggerdef(t.oid)
from unfit_triggers t
join parts on t.tgrelid = parts.oid
-- what guards the trail may do so in silence
where t.tgrelid <> to_regclass('public.audit_logs') or t.tgtype::int & 4 <> 0
union all
select parts.name, format('rule %s does more than is written', r.rulename), pg_get_ruledef(r.oid)
from pg_rewrite r
join parts on r.ev_class = parts.oid
where r.ev_type <> '1' and not r.is_instead and r.ev_enabled in ('O', 'A');

-- seen:
with {{contract_tables}}
select count(*) as seen from pg_class c join contract on c.oid = to_regclass(contract.name);
