-- id: sql/spot/audit-checkpoint
-- claim: The trail still holds all that an earlier run verified: the last row of every scope then, unchanged, and no fewer rows since.
-- cost: The end of a chain, or the whole of it, was removed or replaced, heads and all.
-- severity: page
-- covers: I11
with stored as materialized (
  select nullif(current_setting('replaygate.checkpoint', true), '')::jsonb as saved,
         nullif(current_setting('replaygate.checkpoint_scopes', true), '')::jsonb as scopes
), verified as materialized (
  select s.key as scope, (s.value ->> 0)::bigint as id, s.value ->> 1 as hash, (s.value ->> 2)::bigint as row_count
  from stored, jsonb_each(stored.scopes) s
)
select format('scope %s', v.scope) as subject,
       case when a.id is null then format('row %s was verified before, and is gone', v.id)
            when a.hash is distinct from v.hash then format('row %s was verified before with another hash', v.id)
            when h.scope is null then format('%s rows were verified before, and the head is gone', v.row_count)
            else format('the head counted %s rows before, and counts %s now', v.row_count, h.row_count) end as detail,
       format('hash %s', v.hash) as witness
from verified v
left join public.audit_logs a on a.id = v.id and a.scope = v.scope
left join public.audit_heads h on h.scope = v.scope
where a.hash is distinct from v.hash or h.scope is null or h.row_count < v.row_count
union all
select 'the trail', format('row %s was verified before, and is gone or has another hash', c.id), format('hash %s', c.hash)
from (select (saved ->> 'last_id')::bigint as id, saved ->> 'last_hash' as hash from stored where saved is not null) c
left join public.audit_logs a on a.id = c.id
where a.hash is distinct from c.hash;

-- seen:
select count(*) as seen from (select from public.audit_logs limit 100) a;
