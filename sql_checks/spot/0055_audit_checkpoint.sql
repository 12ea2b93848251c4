-- id: sql/spot/audit-checkpoint
-- claim: The audit row up to which the trail was verified before is still there, unchanged.
-- cost: The trail was replaced as a whole, heads and all.
-- severity: page
-- covers: I11
select format('audit row %s', c.id) as subject,
       case when a.id is null then 'verified before, and gone' else 'verified before with another hash' end as detail,
       c.hash as witness
from (
  select (saved ->> 'audit_id')::bigint as id, saved ->> 'audit_hash' as hash
  from (select nullif(current_setting('replaygate.checkpoint', true), '')::jsonb as saved) s
  where saved is not null
) c
left join public.audit_logs a on a.id = c.id
where a.hash is distinct from c.hash;

-- seen:
select count(*) as seen from (select from public.audit_logs limit 100) a;
