-- The audit rows of these tenants that belong to a request.
select request_id, action, actor, scope, target_count, metadata::text as metadata
from public.audit_logs where scope = any(%s) and request_id is not null
