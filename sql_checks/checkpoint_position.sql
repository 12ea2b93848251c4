-- How far a run verifies the audit trail, once its checks pass: `last_id` is the end of what it reads without a gap, `scopes`
-- the heads of the 10,000 scopes written last. One row; no `last_id` where the trail is empty.
with {{audit_tail}}, reached as (
  select case when low_end is null or low_end >= high then (select max(id) from public.audit_logs) else low_end end as last_id,
         low_end < high as is_behind
  from audit_range
)
select r.last_id, a.hash as last_hash, coalesce(r.is_behind, false) as is_behind, now() as written_at,
       pg_postmaster_start_time() as server_started_at,
       (select coalesce(jsonb_object_agg(h.scope, jsonb_build_array(h.last_id, h.last_hash, h.row_count)), '{}')
        from (select * from public.audit_heads order by last_id desc limit 10000) h) as scopes
from reached r
left join public.audit_logs a on a.id = r.last_id
