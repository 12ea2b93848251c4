-- id: sql/spot/pause-row-exists
-- claim: The pause row for everybody exists.
-- cost: The emergency stop updates no row and stops nothing.
-- severity: page
select 'agent_controls' as subject, 'there is no row for everybody (company_id null)' as detail, null::text as witness
where not exists (select from public.agent_controls where company_id is null);

-- seen:
select 1 as seen from pg_class where oid = to_regclass('public.agent_controls');
