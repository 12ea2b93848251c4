-- The company, the flags of the contract (section 1) and the row of agent_controls that is for everybody.

insert into public.companies (id, name)
values (current_setting('seed.company')::uuid, 'Reference Logistics')
on conflict (id) do nothing;

insert into public.feature_flags (key, company_id, enabled, rollout_percentage, description, updated_at)
values
    ('outbox.enabled', null, true, 10, 'Events go through the outbox', now() - interval '25 hours'),
    ('dlq.replay.enabled', null, true, 100, 'Dead letters can be replayed', now() - interval '25 hours'),
    ('dlq.replay.budget_control', null, true, 100, 'Replays are charged to a budget', now() - interval '25 hours'),
    ('security.signing_v2_required', null, false, 0, 'Signatures without a time are refused', now() - interval '25 hours')
on conflict (key, company_id) do update
set enabled = excluded.enabled, rollout_percentage = excluded.rollout_percentage, description = excluded.description;

insert into public.agent_controls (company_id, agents_paused, pause_reason, updated_at)
values (null, false, null, now() - interval '25 hours')
on conflict (company_id) do update set updated_at = excluded.updated_at;
