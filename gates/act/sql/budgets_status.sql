-- Budgets as the view shows them; every tenant's, or one. %(company)s
select company_id::text as company_id, to_jsonb(b) as row
from public.replay_budgets_status b
where %(company)s::text is null or company_id::text = %(company)s
order by company_id;
