-- id: sql/spot/writes-are-kept
-- claim: What is written to a table of the contract is neither swallowed by a rule, nor refused by a publication, nor gone after a crash.
-- cost: A write of an event, a refusal or a flag succeeds, and the row is not there.
-- severity: page
-- reads: catalogue
-- covers: N04 K18
with {{contract_tables}}, {{contract_parts}}, stored as (
  select parts.name, c.oid, c.relpersistence, c.relreplident, c.relkind, c.relname, n.nspname
  from parts join pg_class c on c.oid = parts.oid join pg_namespace n on n.oid = c.relnamespace
)
select format('%s rule %s', name, r.rulename) as subject, 'swallows what is written' as detail, written.text as witness
from stored s
join pg_rewrite r on r.ev_class = s.oid and r.ev_enabled in ('O', 'A') and r.is_instead
cross join lateral (select pg_get_ruledef(r.oid) as text) written
-- a rule may put a row where it belongs: into a child, back into the table, or where a function puts it
where (written.text ~ 'DO INSTEAD NOTHING;?$' or s.relkind <> 'v' and not exists (
    select from pg_depend d left join parts p on d.refclassid = 'pg_class'::regclass and p.oid = d.refobjid and p.name = s.name
    where d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and (d.refclassid = 'pg_proc'::regclass
      or written.text ~* ('DO INSTEAD\M.*\m(insert\s+into|update|delete\s+from)\s+(only\s+)?' || p.oid::regclass::text))))
-- DELETE must work where the contract deletes rows; elsewhere such a rule protects the rows, as in the audit trail
and (r.ev_type = '3' or r.ev_type = '2' and s.oid <> to_regclass('public.audit_logs')
  or r.ev_type = '4' and s.oid in (to_regclass('public.event_outbox'), to_regclass('public.edge_rate_limits')))
union all
select s.oid::regclass::text, 'is unlogged: a crash of the server empties it', null
from stored s
-- the rate limit's counts of five minutes may be lost
where s.relpersistence <> 'p' and s.oid <> to_regclass('public.edge_rate_limits')
union all
select s.oid::regclass::text, format('is published by %s without a replica identity: no row can be changed', string_agg(p.pubname, ', ')), null
from stored s
join pg_publication_tables t on t.schemaname = s.nspname and t.tablename = s.relname
join pg_publication p on p.pubname = t.pubname and (p.pubupdate or p.pubdelete)
where s.relkind = 'r'
  and (s.relreplident = 'n'
    or s.relreplident = 'd' and not exists (select from pg_index i where i.indrelid = s.oid and i.indisprimary)
    or s.relreplident = 'i' and not exists (select from pg_index i where i.indrelid = s.oid and i.indisreplident))
group by s.oid;

-- seen:
with {{contract_tables}}
select count(*) as seen from pg_class c join contract on c.oid = to_regclass(contract.name);
