-- id: sql/spot/audit-heads
-- claim: The head of every scope names its last audit row, and every scope has a head.
-- cost: The end of the trail was cut off.
-- severity: page
-- covers: I10 I11
with heads as materialized (
  select * from public.audit_heads order by last_id desc
  limit case when current_setting('replaygate.deep', true) = 'on' then null else 10000 end
), tail as materialized (
  select scope, max(id) as last_id from public.audit_logs where id > {{audit_after}} group by scope
)
select format('scope %s', h.scope) as subject,
       case when a.id is null then format('the head names row %s, which is not there', h.last_id)
            when a.hash is distinct from h.last_hash then format('row %s does not have the hash of the head', h.last_id)
            else format('the head names row %s, but row %s is later', h.last_id, t.last_id) end as detail,
       format('%s rows by the head', h.row_count) as witness
from heads h
left join public.audit_logs a on a.id = h.last_id and a.scope = h.scope
left join tail t on t.scope = h.scope
where a.id is null or a.hash is distinct from h.last_hash or t.last_id > h.last_id
union all
select format('scope %s', t.scope), 'the scope has rows and no head', t.last_id::text
from tail t
where not exists (select from public.audit_heads h where h.scope = t.scope);

-- seen:
select count(*) as seen from (select from public.audit_heads limit 10000) h;
