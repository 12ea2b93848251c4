-- id: sql/spot/feature-flags-status
-- claim: The DLQ features are enabled (query 4 of the checklist), and the view shows every flag as it is.
-- cost: Replays are refused, or run without a budget, and the view tells operators otherwise.
-- severity: warn
-- covers: H08
select key as subject,
       format('enabled %s, rollout %s %%; enabled at 100 %% is the plan', enabled, rollout_percentage) as detail,
       description as witness
from public.feature_flags_status
where key in ('dlq.replay.enabled', 'dlq.replay.budget_control') and company_id is null
  and not (enabled and rollout_percentage = 100)
union all
select 'dlq.replay.enabled', 'there is no global row; a missing row is off', null
where not exists (
  select from public.feature_flags_status where key = 'dlq.replay.enabled' and company_id is null
)
union all
(select key, format('of %s: enabled %s, rollout %s %%, %s, of %s; the view does not show that', coalesce(company_id::text, 'everybody'), enabled,
                    rollout_percentage, coalesce(quote_literal(description), 'no description'), updated_at), null
 from (
   (select key, company_id, enabled, rollout_percentage, description, updated_at from public.feature_flags order by key, company_id {{at_most}})
   except select key, company_id, enabled, rollout_percentage, description, updated_at from public.feature_flags_status
 ) hidden)
union all
(select v.key, format('the view calls company %s %s; its name is %s', c.id, coalesce(quote_literal(v.company_name), 'nothing'), quote_literal(c.name)), null
 from public.feature_flags_status v
 join public.companies c on c.id = v.company_id and c.name <> coalesce(v.company_name, '')
 limit 1000);

-- seen:
SELECT * FROM public.feature_flags_status WHERE key LIKE 'dlq%';
