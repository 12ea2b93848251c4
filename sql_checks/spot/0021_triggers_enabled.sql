-- id: sql/spot/triggers-enabled
-- claim: No trigger on a table of the contract is switched off, emptied or restricted so that it misses writes, none that
--    keeps the trail or the budgets makes exceptions by a setting or a role, and no rule does more than the statement says.
-- cost: A rule of the schema is silently not enforced, or an unknown one is.
-- severity: warn
-- reads: catalogue
-- covers: I09
with {{contract_tables}}, {{contract_parts}}, {{unfit_triggers}}, guards as (
  select t.*, t.body ~ ('\m(if|elsif|elseif|when)\M' || inner_part || asked)
              -- one more reason to refuse a budget is no exception
              and (t.tgrelid = to_regclass('public.audit_logs')
                or t.body ~ (asked || inner_part || '\mthen\s+return\M') or t.body ~ ('used' || inner_part || asked)) as is_conditional
  from trigger_bodies t
  cross join (values ('\m(current_setting|current_user|session_user|pg_has_role)\M', '((?!\mthen\M)[^;])*')) patterns(asked, inner_part)
  where t.tgenabled in ('O', 'A') and t.body ~ '\mraise\M'
    and (t.tgrelid = to_regclass('public.audit_logs') and t.tgtype::int & 4 = 0
      or t.tgrelid = to_regclass('public.replay_budgets') and t.tgtype::int & 16 <> 0)
)
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
-- a guard of the trail may drop a statement silently
where t.tgrelid <> to_regclass('public.audit_logs') or t.tgtype::int & 4 <> 0
union all
-- any session can change a setting, or take a role
select t.tgrelid::regclass::text, format('trigger %s asks who it is, or what is set, before it refuses', t.tgname), pg_get_triggerdef(t.oid)
from guards t
where t.is_conditional and not exists (
  select from guards other where not other.is_conditional and other.tgrelid = t.tgrelid and other.tgtype::int & t.tgtype::int & 56 = t.tgtype::int & 56
)
union all
select parts.name, format('rule %s does more than is written', r.rulename), pg_get_ruledef(r.oid)
from pg_rewrite r
join parts on r.ev_class = parts.oid
where r.ev_type <> '1' and not r.is_instead and r.ev_enabled in ('O', 'A');

-- seen:
with {{contract_tables}}
select count(*) as seen from pg_class c join contract on c.oid = to_regclass(contract.name);
