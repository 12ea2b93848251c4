-- The audit rows of a scope, each with the hash that the contract gives to its content.
select id, action, prev_hash, hash,
       encode(sha256(convert_to(prev_hash || jsonb_build_array(
         id, action, actor, scope, target_count, success_count, failure_count, metadata, request_id,
         (extract(epoch from created_at) * 1000000)::bigint)::text, 'UTF8')), 'hex') as due
from public.audit_logs where scope = %s order by id
