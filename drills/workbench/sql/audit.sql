-- The audit rows of a scope, of these actions or, where none are given, of all, in the order in which they were written:
-- sessions may take their ids in another one.
select id, action, actor, scope, target_count, success_count, failure_count, metadata, request_id, created_at,
       prev_hash, hash, txid
from public.audit_logs
where scope = %s and (cardinality(%s::text[]) = 0 or action = any(%s::text[])) order by created_at, id
