-- id: sql/spot/audit-row-counts
-- claim: Every scope has as many audit rows as its head counts.
-- cost: Rows were removed from the middle of the trail.
-- severity: page
-- covers: I11
with heads as materialized (
  select scope, row_count, sum(row_count) over (order by last_id desc, scope) as so_far from public.audit_heads
), counted as (
  select h.scope, h.row_count, (select count(*) from public.audit_logs a where a.scope = h.scope) as rows
  from heads h
  where h.so_far <= 20000 or current_setting('replaygate.deep', true) = 'on'
)
select format('scope %s', scope) as subject, format('%s rows, the head counts %s', rows, row_count) as detail, null::text as witness
from counted
where rows <> row_count;

-- seen:
select count(*) as seen from (select from public.audit_heads limit 10000) h;
