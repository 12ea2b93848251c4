"""Planted defects of deliveries, dead letters and runs."""

from __future__ import annotations

from dataclasses import replace

from tests.drills.sql_plants import Plant, meddler

LOSE = "return null;"


def lost_if(name: str, condition: str, *red: str) -> Plant:
    """An effect is lost where a condition on the event's outbox row `o` holds."""
    body = (
        "if new.status = 'completed' and exists (select from public.event_outbox o where o.event_id = new.event_id"
        f" and {condition}) then return null; end if;"
    )
    return meddler(name, "agent_tasks", "insert", body, red)


TWIN = Plant(
    "every effect twice",
    "create table agent_tasks_twin () inherits (agent_tasks);"
    "create function zz_planted_twin() returns trigger language plpgsql security definer"
    " set search_path = public as $p$ begin if new.status = 'completed' then"
    " insert into agent_tasks_twin (id, company_id, agent_name, event_id, status)"
    " values (-new.id, new.company_id, new.agent_name, new.event_id, 'completed'); end if; return new; end $p$;"
    "create trigger zz_planted_twin before insert on agent_tasks for each row execute function zz_planted_twin()",
    "drop trigger zz_planted_twin on agent_tasks; drop function zz_planted_twin(); drop table agent_tasks_twin",
    (
        "drill/outbox/same-event-id-once",
        "drill/outbox/same-event-id-raced",
        "drill/outbox/written-by-hand",
        "drill/outbox/crowd-once-each",
        "drill/outbox/second-row-of-an-event",
        "drill/dlq/effect-that-was-there",
        "drill/dlq/replayed-item-is-resolved",
    ),
)

OUTBOX = [
    TWIN,
    replace(TWIN, name="every effect twice, seen first", red=("drill/outbox/delivered-once",)),
    meddler(
        "two transactions",
        "event_outbox",
        "insert",
        "new.txid := '3';",
        ("drill/outbox/event-and-row-together", "drill/audit/start-and-effect-together"),
    ),
    meddler(
        "processed when it is claimed",
        "event_outbox",
        "update",
        "if new.claimed_until > now() and new.processed_at is null then new.processed_at := now(); end if;",
        ("drill/outbox/processed-after-its-effect",),
    ),
    meddler(
        "types are written in lower case",
        "event_outbox",
        "insert",
        "new.event_type := lower(new.event_type);",
        ("drill/outbox/event-as-sent",),
    ),
    meddler(
        "payloads are touched",
        "event_outbox",
        "insert",
        "new.payload := new.payload || '{\"touched\": true}';",
        ("drill/outbox/payload-unchanged", "drill/dlq/letter-is-kept", "drill/outbox/dead-letter-is-the-event"),
    ),
    meddler(
        "due times and claims are ignored",
        "event_outbox",
        "insert",
        "if session_user not in ('replay_service', 'replay_worker') then new.next_attempt_at := now();"
        " new.claimed_until := null; new.processed_at := null; new.dead_at := null; end if;",
        ("drill/outbox/not-before-it-is-due", "drill/outbox/claimed-by-another", "drill/outbox/done-is-done"),
    ),
    meddler(
        "a claim is for ever",
        "event_outbox",
        "insert",
        "if new.claimed_until is not null then new.claimed_until := 'infinity'; end if;",
        ("drill/outbox/expired-claim-is-taken-up",),
    ),
    meddler(
        "effects are lost",
        "agent_tasks",
        "insert",
        LOSE,
        (
            "drill/outbox/effect-within-two-seconds",
            "drill/outbox/effect-and-acknowledgement-together",
            "drill/lifecycle/all-of-an-item-together",
            "drill/dlq/item-without-event-id",
        ),
    ),
    lost_if(
        "what commits late is lost",
        "exists (select from public.event_outbox b where b.company_id = o.company_id and b.id > o.id"
        " and b.processed_at < now())",
        "drill/outbox/late-commit-is-delivered",
    ),
    lost_if(
        "an open transaction stops all",
        "exists (select from pg_stat_activity where application_name = 'replaygate' and backend_xid is not null)",
        "drill/outbox/open-transaction-stops-nobody",
        "drill/recovery/long-transaction-held-open",
    ),
    lost_if(
        "poison stops its tenant",
        "exists (select from public.event_outbox b where b.company_id = o.company_id and b.processed_at is null"
        " and b.payload ? 'drill' and b.event_id <> o.event_id)",
        "drill/outbox/poison-holds-no-other-key",
        "drill/outbox/slow-event-holds-nobody",
    ),
    lost_if(
        "slow events are never done",
        "o.payload #>> '{drill,delay_ms}' = '4000'",
        "drill/outbox/slow-event-comes-through",
    ),
    lost_if(
        "poison stops everybody",
        "exists (select from public.event_outbox b where b.company_id <> o.company_id and b.processed_at is null"
        " and b.payload ? 'drill')",
        "drill/outbox/poison-holds-no-other-tenant",
    ),
    lost_if(
        "a dead event blocks its key",
        "exists (select from public.event_outbox b where b.company_id = o.company_id and"
        " b.aggregate_key = o.aggregate_key"
        " and b.dead_at is not null)",
        "drill/outbox/dead-event-frees-its-key",
    ),
    lost_if(
        "held rows stop everybody",
        "(select count(*) from public.event_outbox b where b.processed_at is null) > 500",
        "drill/held/others-do-not-wait",
    ),
    meddler(
        "held rows are dropped by their age",
        "event_outbox",
        "insert",
        "if new.inserted_at < now() - interval '1 day'"
        " and not public.is_feature_enabled('outbox.enabled', new.company_id) then new.processed_at := now(); end if;",
        ("drill/held/switched-off-is-not-delivered",),
    ),
    meddler(
        "keys are forgotten",
        "event_outbox",
        "insert",
        "new.aggregate_key := null;",
        ("drill/outbox/failing-event-holds-its-key", "drill/dlq/letter-is-kept"),
    ),
    meddler(
        "given up at the first failure",
        "event_outbox",
        "update",
        "if session_user = 'replay_worker' and new.attempts = 1 and new.processed_at is null then"
        " new.dead_at := now(); end if;",
        ("drill/outbox/failed-is-tried-again", "drill/outbox/dead-letter-in-one-transaction"),
    ),
    meddler(
        "marked when sent",
        "event_outbox",
        "update",
        "if session_user = 'replay_worker' and new.attempts > old.attempts then new.dead_at := null;"
        " new.processed_at := now(); end if;",
        ("drill/outbox/failing-is-not-processed",),
    ),
    meddler(
        "waits that shrink",
        "event_outbox",
        "update",
        "if session_user = 'replay_worker' and new.attempts > old.attempts then"
        " new.next_attempt_at := date_trunc('minute', now()) + interval '3 hours' / new.attempts; end if;",
        ("drill/outbox/back-off-grows",),
    ),
    meddler(
        "waits that do not grow",
        "event_outbox",
        "update",
        "if session_user = 'replay_worker' and new.next_attempt_at > old.next_attempt_at then"
        " new.next_attempt_at := clock_timestamp() + make_interval(secs => 2 + random() / 2); end if;",
        ("drill/outbox/back-off-grows",),
    ),
    meddler(
        "waits without jitter",
        "event_outbox",
        "update",
        "if session_user = 'replay_worker' and new.next_attempt_at > old.next_attempt_at then"
        " new.next_attempt_at := clock_timestamp() + make_interval(secs => 2 * power(2, new.attempts)); end if;",
        ("drill/outbox/back-off-jittered",),
    ),
    meddler(
        "tried whenever somebody wakes the relay",
        "event_outbox",
        "insert",
        "update public.event_outbox set attempts = attempts + 1 where next_attempt_at > now() + interval '50 minutes';",
        ("drill/outbox/backs-off",),
        timing="after",
    ),
    meddler(
        "letters are dropped",
        "dead_letter_queue",
        "insert",
        "if session_user = 'replay_worker' then return null; end if;",
        ("drill/outbox/dead-letter-once", "drill/outbox/dead-letter-in-one-transaction"),
    ),
]

LETTERS = [
    meddler(
        "items are never settled",
        "dead_letter_queue",
        "update",
        "if new.status = 'resolved' then new.status := 'replaying'; end if;",
        (
            "drill/dlq/replayed-item-is-resolved",
            "drill/dlq/item-without-event-id",
            "drill/dlq/only-legal-transitions",
            "drill/dlq/effect-that-was-there",
            "drill/lifecycle/all-of-an-item-together",
        ),
    ),
    meddler(
        "claims are not written",
        "dead_letter_queue",
        "update",
        "if new.status = 'replaying' then new.status := 'pending'; end if;",
        ("drill/dlq/concurrent-replays-one-claim", "drill/dlq/only-legal-transitions"),
    ),
    meddler(
        "everything is eligible",
        "dead_letter_queue",
        "insert or update",
        "if tg_op = 'INSERT' then new.status := 'pending'; new.retry_after := now(); end if; new.max_retries := 99;",
        (
            "drill/dlq/discarded-stays-discarded",
            "drill/dlq/max-retries-is-the-end",
            "drill/dlq/not-before-retry-after",
        ),
    ),
    meddler(
        "one event id for all",
        "event_outbox",
        "insert",
        "if new.replay_run_id is not null then new.event_id := '00000000-0000-4000-8000-00000000beef'; end if;",
        ("drill/dlq/item-without-event-id", "drill/dlq/letter-is-kept"),
    ),
    meddler(
        "a new event id each time",
        "event_outbox",
        "insert",
        "if new.replay_run_id is not null then new.event_id := gen_random_uuid(); end if;",
        ("drill/lifecycle/event-id-is-stable",),
    ),
]

RUNS = [
    meddler(
        "retries are not counted",
        "dead_letter_queue",
        "update",
        "new.retry_count := old.retry_count;",
        ("drill/lifecycle/failed-item-is-pending-again", "drill/lifecycle/stop-leaves-the-rest-untouched"),
    ),
    meddler(
        "failed items are tried again",
        "event_outbox",
        "update",
        "if new.replay_run_id is not null and new.dead_at is not null then new.dead_at := null;"
        " new.replay_run_id := null; new.claimed_until := null; end if;",
        ("drill/lifecycle/one-attempt",),
    ),
    meddler(
        "every run is a success",
        "replay_runs",
        "update",
        "if new.status = 'completed' then new.success_count := new.target_count; new.failure_count := 0; end if;",
        ("drill/lifecycle/run-counts-add-up", "drill/lifecycle/four-failures-do-not-stop"),
    ),
    meddler(
        "the trail knows no failures",
        "audit_logs",
        "insert",
        "if new.action = 'dlq_replay' then new.failure_count := 0; end if;",
        ("drill/lifecycle/run-counts-add-up",),
        first=True,
    ),
    meddler(
        "no run is stopped",
        "replay_runs",
        "update",
        "if new.status = 'stopped' then new.status := 'completed'; end if;",
        ("drill/lifecycle/stops-above-twenty-percent", "drill/lifecycle/stops-soon-above-a-fifth"),
    ),
    meddler(
        "one failure stops a run",
        "replay_runs",
        "update",
        "if new.status = 'completed' and new.failure_count > 0 then new.status := 'stopped'; end if;",
        ("drill/lifecycle/twenty-percent-is-allowed", "drill/lifecycle/four-failures-do-not-stop"),
    ),
    meddler(
        "no refund",
        "replay_budgets",
        "update",
        "if session_user = 'replay_worker' then return old; end if;",
        ("drill/lifecycle/stop-refunds-the-rest",),
        first=True,
    ),
    meddler(
        "everything at once",
        "event_outbox",
        "insert",
        "if new.replay_run_id is not null then new.claimed_until := now() + interval '1 second'; end if;",
        ("drill/lifecycle/ten-in-flight",),
    ),
]
