-- id: sql/spot/audit-row-counts
-- claim: A scope has as many audit rows as its head counts: all of them, or those since the stored checkpoint, of the scopes written last, 20,000 rows in all (every row under --deep).
-- cost: Rows were removed from the middle of the trail.
-- severity: page
-- covers: I11
with verified as materialized (
  select s.key as scope, (s.value ->> 0)::bigint as id, (s.value ->> 2)::bigint as row_count
  from jsonb_each(nullif(current_setting('replaygate.checkpoint_scopes', true), '')::jsonb) s
  where current_setting('replaygate.deep', true) is distinct from 'on'
), heads as materialized (
  select h.scope, h.row_count, coalesce(v.id, -9223372036854775808) as since, h.row_count - coalesce(v.row_count, 0) as wanted,
         sum(greatest(h.row_count - coalesce(v.row_count, 0), 0)) over (order by h.last_id desc, h.scope) as so_far
  from public.audit_heads h left join verified v on v.scope = h.scope
  where (h.last_id, h.row_count) is distinct from (v.id, v.row_count)
), suspicious as materialized (
  select h.scope, h.row_count
  from heads h
  cross join lateral (select count(*) as rows from public.audit_logs a where a.scope = h.scope and a.id > h.since) c
  where (h.so_far <= 20000 or current_setting('replaygate.deep', true) = 'on') and c.rows is distinct from h.wanted
), counted as (
  -- counted whole before it is said: ids may have been taken in another order than the places in the chain
  select s.*, (select count(*) from public.audit_logs a where a.scope = s.scope) as rows from suspicious s
)
select format('scope %s', scope) as subject, format('%s rows, the head counts %s', rows, row_count) as detail, null::text as witness
from counted
where rows is distinct from row_count;

-- seen:
select count(*) as seen from (select from public.audit_heads limit 10000) h;
