UPDATE agent_controls SET agents_paused = true;
