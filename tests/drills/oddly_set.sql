-- Times in milliseconds.
alter table public.event_outbox alter inserted_at type timestamptz(3), alter next_attempt_at type timestamptz(3),
  alter claimed_until type timestamptz(3), alter processed_at type timestamptz(3), alter dead_at type timestamptz(3);
alter table public.dead_letter_queue alter created_at type timestamptz(3), alter retry_after type timestamptz(3);
alter table public.replay_runs alter requested_at type timestamptz(3), alter completed_at type timestamptz(3);
alter table public.agent_tasks alter created_at type timestamptz(3), alter updated_at type timestamptz(3);
-- A run of which every item failed is called failed.
create function public.a_run_without_success() returns trigger language plpgsql as $$ begin
  if new.status = 'completed' and new.failure_count > 0 and new.success_count = 0 then new.status := 'failed'; end if;
  return new;
end $$;
create trigger a_run_without_success before update on public.replay_runs
  for each row execute function public.a_run_without_success();
-- New companies and changed flags are in the trail, too.
create function public.on_record() returns trigger language plpgsql security definer as $$ begin
  insert into public.audit_logs (action, actor, scope)
    values (tg_table_name || '_changed', session_user, coalesce(to_jsonb(new) ->> tg_argv[0], 'all'));
  return null;
end $$;
create trigger on_record after insert on public.companies for each row execute function public.on_record('id');
create trigger on_record after insert or update on public.feature_flags
  for each row execute function public.on_record('company_id');
-- Effects are dated by a clock that is a second behind.
create function public.a_clock_behind() returns trigger language plpgsql as $$ begin
  if current_user like 'replay_%' then new.updated_at := new.updated_at - interval '1 second'; end if;
  return new;
end $$;
create trigger a_clock_behind before insert or update on public.agent_tasks
  for each row execute function public.a_clock_behind()
