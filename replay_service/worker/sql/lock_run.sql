-- Lock a run: its items settle one after the other, so that exactly one of them ends it.
SELECT r.status FROM public.replay_runs r WHERE r.id = %(run_id)s::uuid FOR UPDATE
