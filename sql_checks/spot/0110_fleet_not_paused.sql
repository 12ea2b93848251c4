-- id: sql/spot/fleet-not-paused
-- claim: Neither everybody nor more than half of the tenants is paused.
-- cost: Nothing is delivered: the gate judges old deliveries only.
-- severity: warn
select 'everybody' as subject, 'agents are paused' as detail, left(pause_reason, 500) as witness
from public.agent_controls where company_id is null and agents_paused
union all
select 'tenants', format('%s of %s are paused', p.paused, t.tenants), null
from (select count(*) as paused from public.agent_controls a join public.companies c on c.id = a.company_id
      where a.agents_paused and {{not_excluded}}) p,
     (select count(*) as tenants from public.companies
      where id not in (select unnest(coalesce(nullif(current_setting('replaygate.excluded', true), ''), '{}')::uuid[]))) t
where p.paused * 2 > t.tenants;

-- seen:
select (select count(*) from public.agent_controls) + (select count(*) from public.companies) as seen;
