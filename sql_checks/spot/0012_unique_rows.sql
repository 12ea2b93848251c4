-- id: sql/spot/unique-rows
-- claim: No key that the contract calls unique occurs twice.
-- cost: A corrupt or missing index has let duplicates in: which of them counts is chance.
-- severity: page
select 'replay_runs ' || company_id as subject, format('%s runs under one key', count(*)) as detail, idempotency_key as witness
from (select company_id, idempotency_key from public.replay_runs order by requested_at desc {{at_most}}) recent
group by company_id, idempotency_key having count(*) > 1
union all
select 'feature_flags ' || key, format('%s rows for one company', count(*)), coalesce(company_id::text, 'global')
from public.feature_flags group by key, company_id having count(*) > 1
union all
select 'agent_controls', format('%s rows for one company', count(*)), coalesce(company_id::text, 'everybody')
from public.agent_controls group by company_id having count(*) > 1
union all
select 'replay_budgets', format('%s rows for one company', count(*)), company_id::text
from public.replay_budgets group by company_id having count(*) > 1;

-- seen:
select (select count(*) from public.feature_flags) + (select count(*) from public.agent_controls) as seen;
