-- The checklist's own statement, for a table with only the columns that it needs.
update public.agent_controls set agents_paused = true where agents_paused is distinct from true;
