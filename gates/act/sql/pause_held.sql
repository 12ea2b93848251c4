-- Waits until nobody else is changing a pause: one may be about to end.
select count(*) as held from (select agents_paused from public.agent_controls for update) c;
