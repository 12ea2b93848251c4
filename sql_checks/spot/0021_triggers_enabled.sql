-- id: sql/spot/triggers-enabled
-- claim: No trigger on a table of the contract is switched off, emptied or restricted so that it misses writes, none ends a row
--    as it comes, empties it or gives it away, none that keeps the trail makes exceptions, nor one of the budgets by a setting, a role or a tenant, and no rule does more than the statement says.
-- cost: A rule of the schema is silently not enforced, or an unknown one is.
-- severity: warn
-- reads: catalogue
-- covers: I09
with {{contract_tables}}, {{contract_parts}}, {{unfit_triggers}}, guards as (
  select t.*, case when t.tgrelid = to_regclass('public.audit_logs') then
                -- where each branch refuses, the statement alone may say with which words
                not (flat.body ~ '^((?!\m(return|if|case)\M).)*\mraise\M'
                  or flat.body !~ '\m(if|case)\M' and t.body !~ (conditions || inner_part || '\m(old|new)\M')
                     and t.body !~ (conditions || inner_part || asked) and (t.code ~ '\melse\s+raise\M' or not exists (
                       select from (values (8, '''delete'''), (16, '''update'''), (32, '''truncate''')) named(bit, word)
                       where t.tgtype::int & bit <> 0 and strpos(t.code, word) = 0)))
              else t.body ~ (conditions || inner_part || asked)
                -- one more reason to refuse a budget is no exception
                and (t.body ~ (asked || inner_part || '\mthen\s+return\M') or t.body ~ ('used' || inner_part || asked))
                -- nor is one for a certain tenant
                or whole ~ (tenants || '(<>|!=|is distinct from|not in)\s*\(*\s*''')
                or whole ~ (tenants || '(=|in|is not distinct from)\s*\(*\s*''' || inner_part || '\mthen\s+return\M') end as is_conditional
  from trigger_bodies t
  cross join (values ('\m(if|elsif|elseif|when)\M', '\m(current_setting|current_user|session_user|pg_has_role)\M',
                      '((?!\mthen\M)[^;])*', format('\m(new|old)\."?%s"?\s*', lower((parse_ident('public.replay_budgets.company_id'))[3]))))
    patterns(conditions, asked, inner_part, tenants)
  cross join lateral concat_ws(' ', t.code, lower(pg_get_triggerdef(t.oid))) whole
  -- branches that give nothing back are left out, the inner ones first; before a row, NULL refuses; an UPDATE may change nothing
  cross join lateral (
    with recursive folded(body, depth) as (
      select regexp_replace(case when t.tgtype::int & 3 = 3 then regexp_replace(t.body, '\mreturn\s+null\M', 'raise', 'g') else t.body end,
                            '\m(new|old)\s+is\s+not\s+distinct\s+from\s+(new|old)\s+then\s+return\M', '', 'g'), 0
      union all
      select regexp_replace(body, '\m(if|case)\M((?!\m(if|case|return)\M).)*?\mend\s+(if|case)\M', '', 'g'), depth + 1
      from folded where depth < 5
    )
    select body from folded order by depth desc limit 1) flat
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
-- a guard of the trail may drop a statement silently, and a run of nothing has ended
where case t.tgrelid when to_regclass('public.audit_logs') then t.tgtype::int & 4 <> 0
                     when to_regclass('public.replay_runs') then t.why not like 'ends rows%' else true end
union all
-- any session can change a setting, or take a role
select t.tgrelid::regclass::text,
       format('trigger %s %s before it refuses', t.tgname,
              case when t.tgrelid = to_regclass('public.audit_logs') then 'lets statements or rows through by a condition'
                   else 'asks who it is, whose budget, or what is set,' end),
       pg_get_triggerdef(t.oid)
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
