-- id: sql/spot/flags-decided-by-formula
-- claim: is_feature_enabled answers by the contract's formula, for companies with and without a row of their own.
-- cost: The wrong tenants get the release, and the gate judges other tenants.
-- severity: page
-- covers: H01 H02 H06
with sample as (
  select id from (select id from public.companies limit 100) known
  union all
  select lpad((n * 10000019)::text, 32, '0')::uuid from generate_series(1, 100) n
), asked as (
  select s.id, k.key,
         ('x' || encode(substr(sha256(convert_to(lower(k.key || ':' || s.id), 'UTF8')), 1, 4), 'hex'))::bit(32)::bigint % 100 as bucket,
         public.is_feature_enabled(k.key, s.id) as answer
  from sample s cross join (
    select unnest('{outbox.enabled,dlq.replay.enabled,dlq.replay.budget_control,security.signing_v2_required}'::text[])
    union all select 'no.such.flag') k(key)
), expected as (
  -- a formula of the deployment's own: only nobody and everybody are known
  select a.*, case when 'public.is_feature_enabled.bucket' = 'own' and f.enabled and f.rollout_percentage between 1 and 99
                   then a.answer
                   else coalesce(f.enabled and a.bucket < f.rollout_percentage, a.key = 'dlq.replay.budget_control') end as wanted
  from asked a
  left join lateral (
    select enabled, rollout_percentage from public.feature_flags f
    where f.key = a.key and (f.company_id = a.id or f.company_id is null)
    order by f.company_id nulls last limit 1
  ) f on true
)
select format('%s for %s', key, id) as subject,
       format('answered %s, bucket %s makes it %s', coalesce(answer::text, 'NULL'), bucket, wanted) as detail,
       null::text as witness
from expected
where answer is distinct from wanted
  -- without budgets nobody asks for their control
  and (key <> 'dlq.replay.budget_control' or to_regclass('public.replay_budgets') is not null)
limit 1000;

-- seen:
select count(*) as seen from public.feature_flags;
