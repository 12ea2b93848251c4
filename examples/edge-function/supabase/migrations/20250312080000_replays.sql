-- How a replayed job is settled, and how a replay ends. Locks are taken in this order: message, replay, job.

create function ops.finish_replay(replay uuid, outcome text) returns void
  language sql set search_path = ''
as $$
  with ended as (
    update ops.replays set state = outcome, finished_at = clock_timestamp() where id = replay and state = 'running' returning *
  )
  insert into ops.audit_trail (event, who, org_scope, targets, succeeded, failed, detail, trace_id)
  select e.event, r.requested_by, r.org_id::text, r.item_count, r.ok_count, r.bad_count,
    jsonb_build_object('replay_run_id', r.id, 'request_key', r.request_key, 'state', r.state), r.trace_id
  from ended r
  cross join (values (case outcome when 'halted' then 'replay.halted' else 'replay.finished' end), ('replay.summary')) as e (event)
$$;

-- One attempt of a replayed job. More than a fifth of at least five attempts failed: the rest of the replay is called off.
create function ops.settle_replayed(message bigint, lease uuid, problem text, problem_detail text) returns boolean
  language plpgsql set search_path = ''
as $$
declare
  m ops.outbox_messages;
  r ops.replays;
begin
  select * into m from ops.outbox_messages o
  where o.seq = message and o.lease_id = lease and o.delivered_at is null and o.abandoned_at is null for update;
  if not found then
    return false;
  end if;
  select * into r from ops.replays where id = m.replay_id for update;

  if problem is null then
    insert into ops.effects as e (org_id, event_id, state) values (m.org_id, m.event_id, 'ok')
    on conflict (event_id) do update set state = 'ok', updated_at = clock_timestamp() where e.state <> 'ok';
  end if;
  update ops.outbox_messages set
    delivered_at = case when problem is null then clock_timestamp() end,
    abandoned_at = case when problem is not null then clock_timestamp() end,
    leased_until = null, tries = tries + 1, last_error = problem
  where seq = m.seq;
  update ops.failed_jobs set
    state = case when problem is null then 'recovered' else 'waiting' end,
    tries = tries + case when problem is null then 0 else 1 end,
    not_before = case when problem is null then not_before
      else greatest(not_before, clock_timestamp()) + make_interval(secs => least(3600, 30 * 2 ^ least(tries, 10)) * (0.5 + random() / 2)) end,
    error_class = coalesce(problem, error_class), error_detail = coalesce(problem_detail, error_detail)
  where id = m.job_id and state = 'in_progress';
  if r.id is null then
    return true;
  end if;
  update ops.replays set ok_count = ok_count + (problem is null)::int, bad_count = bad_count + (problem is not null)::int
  where id = r.id returning * into r;

  if r.bad_count * 5 > r.ok_count + r.bad_count and r.ok_count + r.bad_count >= 5 then
    with called_off as (
      delete from ops.outbox_messages o
      where o.replay_id = r.id and o.delivered_at is null and o.abandoned_at is null and o.lease_id is null returning o.job_id
    )
    update ops.failed_jobs j set state = 'waiting', replay_id = null from called_off c where j.id = c.job_id;
  end if;
  if not exists (select from ops.outbox_messages o where o.replay_id = r.id and o.delivered_at is null and o.abandoned_at is null) then
    perform ops.finish_replay(r.id, case when r.ok_count + r.bad_count < r.item_count then 'halted' else 'done' end);
  end if;
  return true;
end
$$;

-- A refusal in the trail: at most one row for an organisation, code and minute where `seldom`.
create function ops.note_refusal(scope text, code text, caller text, trace text, seldom boolean) returns void
  language plpgsql set search_path = '' set lock_timeout = '1s'
as $$
begin
  if seldom then
    perform pg_advisory_xact_lock(hashtextextended('refusal ' || scope || ' ' || code, 0));
    if exists (
      select from ops.audit_trail a
      where a.org_scope = scope and a.event = 'replay.refused' and a.detail ->> 'code' = code
        and a.at >= date_trunc('minute', clock_timestamp())
    ) then
      return;
    end if;
  end if;
  insert into ops.audit_trail (event, who, org_scope, detail, trace_id)
  values ('replay.refused', caller, scope, jsonb_build_object('code', code), trace);
end
$$;

revoke execute on function ops.finish_replay(uuid, text), ops.settle_replayed(bigint, uuid, text, text),
  ops.note_refusal(text, text, text, text, boolean) from public;
grant execute on function ops.finish_replay(uuid, text) to edge_api, edge_relay;
grant execute on function ops.settle_replayed(bigint, uuid, text, text) to edge_relay;
grant execute on function ops.note_refusal(text, text, text, text, boolean) to edge_api;
