-- id: sql/spot/audit-chain
-- claim: The hash chain of every scope verifies in what is read: each row hashes to what it says and follows one row of its scope, and no two follow the same.
-- cost: Somebody changed or removed a row of the trail.
-- severity: page
-- covers: I10
with {{audit_tail}}, judged as materialized (
  select id, scope, action, created_at, prev_hash,
         hash is distinct from encode(sha256(convert_to(prev_hash || jsonb_build_array(
           id, action, actor, scope, target_count, success_count, failure_count, metadata, request_id,
           -- infinity is no time that a row was written at, and no number
           case when isfinite(created_at) then (extract(epoch from created_at) * 1000000)::bigint end)::text, 'UTF8')), 'hex') as is_altered
  from audit_tail
), forked as materialized (
  select scope, prev_hash, count(*) as followers from audit_tail group by scope, prev_hash having count(*) > 1
), loose as materialized (
  -- rows whose predecessor was not read
  select * from judged j
  where not exists (select from audit_tail p where p.hash = j.prev_hash collate "C" and p.scope is not distinct from j.scope)
), odd as materialized (
  -- mostly it is the row before. Materialised, so that the searches below are only made for the few for which it is not
  select l.* from loose l
  left join lateral (
    select p.hash from public.audit_logs p where p.scope = l.scope and p.id < l.id order by p.id desc limit 1
  ) before on true
  where coalesce(before.hash, repeat('0', 64)) is distinct from l.prev_hash
), unlinked as (
  -- concurrent writers may have taken their ids in another order than their places in the chain
  select o.id
  from odd o
  left join lateral (
    -- the start of a chain must be the only one of its scope, any other row must have a predecessor; a look-up each
    select p.id from public.audit_logs p
    where p.scope = o.scope and p.id <> o.id
      and case when o.prev_hash = repeat('0', 64) then p.prev_hash else p.hash end = o.prev_hash
    limit 1
  ) found on true
  where (found.id is not null) = (o.prev_hash = repeat('0', 64))
)
select format('audit row %s of scope %s', j.id, j.scope) as subject,
       case when j.is_altered then 'the row does not hash to its hash'
            when f.followers > 1 then format('%s rows follow the same row', f.followers)
            else 'prev_hash is not the hash of a row before it' end || '; ' || coalesce(j.action, 'NULL') as detail,
       j.created_at::text as witness
from judged j
left join forked f on f.prev_hash = j.prev_hash collate "C" and f.scope is not distinct from j.scope
where j.is_altered or f.followers > 1 or j.id in (select id from unlinked)
order by j.id;

-- seen:
select count(*) as seen from (select from public.audit_logs limit 10000) a;
