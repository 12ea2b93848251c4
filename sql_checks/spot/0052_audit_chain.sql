-- id: sql/spot/audit-chain
-- claim: The hash chain of every scope verifies: each row hashes to what it says and follows the row before it.
-- cost: Somebody changed or removed a row of the trail.
-- severity: page
-- covers: I10
with tail as materialized (
  select a.*, lag(hash) over (partition by scope order by id) as hash_before,
         row_number() over (partition by scope order by id) = 1 as is_first
  from public.audit_logs a
  where id > {{audit_after}}
), linked as (
  select t.*, case when t.is_first then coalesce((
           select p.hash from public.audit_logs p where p.scope = t.scope and p.id < t.id order by p.id desc limit 1
         ), repeat('0', 64)) else t.hash_before end as wanted_prev
  from tail t
)
select format('audit row %s of scope %s', id, scope) as subject,
       case when prev_hash is distinct from wanted_prev then format('prev_hash is not the hash of the row before it; %s', action)
            else format('the row does not hash to its hash; %s', action) end as detail,
       created_at::text as witness
from linked
where prev_hash is distinct from wanted_prev
   or hash is distinct from encode(sha256(convert_to(prev_hash || jsonb_build_array(
        id, action, actor, scope, target_count, success_count, failure_count, metadata, request_id,
        (extract(epoch from created_at) * 1000000)::bigint)::text, 'UTF8')), 'hex')
order by id;

-- seen:
select count(*) as seen from (select from public.audit_logs limit 10000) a;
