-- id: sql/spot/audit-heads
-- claim: The head of every scope names the last row of its chain, and every scope has a head (of the 10,000 scopes written last).
-- cost: The end of the trail was cut off.
-- severity: page
-- covers: I10 I11
with {{audit_tail}}, heads as materialized (
  select * from public.audit_heads order by last_id desc
  limit case when current_setting('replaygate.deep', true) = 'on' then null else 10000 end
), ends as materialized (
  -- rows that no row which was read follows, and that are not the head's: the next row may be among those left out, or
  -- bear a smaller id than its place
  select t.id, t.scope, t.hash, h.scope is not null as has_head, h.last_id
  from audit_tail t
  left join public.audit_heads h on h.scope = t.scope
  where t.hash is distinct from h.last_hash
    and not exists (select from audit_tail n where n.prev_hash = t.hash collate "C" and n.scope is not distinct from t.scope)
), odd as materialized (
  select e.* from ends e
  left join lateral (
    select n.prev_hash from public.audit_logs n where n.scope = e.scope and n.id > e.id order by n.id limit 1
  ) after on true
  where not e.has_head or after.prev_hash is distinct from e.hash
), loose as (
  select o.*
  from odd o
  left join lateral (
    select n.id from public.audit_logs n where n.scope = o.scope and n.prev_hash = o.hash limit 1
  ) found on true
  where not o.has_head or found.id is null
)
select format('scope %s', h.scope) as subject,
       case when a.id is null then format('the head names row %s, which is not there', h.last_id)
            else format('row %s does not have the hash of the head', h.last_id) end as detail,
       format('%s rows by the head', h.row_count) as witness
from heads h
left join public.audit_logs a on a.id = h.last_id and a.scope = h.scope
where a.id is null or a.hash is distinct from h.last_hash
union all
select format('scope %s', scope),
       case when has_head then format('the head names row %s, but nothing follows row %s', last_id, id)
            else 'the scope has rows and no head' end,
       format('row %s', id)
from loose;

-- seen:
select count(*) as seen from (select from public.audit_heads limit 10000) h;
