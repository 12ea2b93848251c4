"""Faults of deliveries, dead letters and runs, planted in the database."""

from faults.trigger.planting import planted, trigger

OUTBOX, DLQ, LIFE, RECOVERY = "drill/outbox", "drill/dlq", "drill/lifecycle", "drill/recovery"


WORKER = "session_user = 'replay_worker'"
GATE = "session_user not in ('replay_service', 'replay_worker')"
LATER = "clock_timestamp() + make_interval"


def row(fault_id: str, on: str, body: str, breaks: str, *checks: str) -> None:
    """Rows of a table are written other than they should be."""
    trigger(fault_id, on, body, checks, breaks)


def lost_if(fault_id: str, condition: str, *checks: str) -> None:
    """An effect is lost where a condition on the event's outbox row `o` holds."""
    body = (
        "if new.status = 'completed' and exists (select from public.event_outbox o where o.event_id = new.event_id"
        f" and {condition}) then return null; end if;"
    )
    trigger(fault_id, "insert on agent_tasks", body, checks)


def another_if(condition: str) -> str:
    """Whether there is another row `b` of the outbox."""
    return f"exists (select from public.event_outbox b where {condition})"


planted(
    "outbox/every-effect-twice",
    "create table agent_tasks_twin () inherits (agent_tasks);"
    "create function zz_planted_twin() returns trigger language plpgsql security definer"
    " set search_path = public as $p$ begin if new.status = 'completed' then"
    " insert into agent_tasks_twin (id, company_id, agent_name, event_id, status)"
    " values (-new.id, new.company_id, new.agent_name, new.event_id, 'completed'); end if; return new; end $p$;"
    "create trigger zz_planted_twin before insert on agent_tasks for each row execute function zz_planted_twin()",
    "drop trigger zz_planted_twin on agent_tasks; drop function zz_planted_twin(); drop table agent_tasks_twin",
    "from pg_class where relname = 'agent_tasks_twin'",
    (
        *(f"{OUTBOX}/{name}" for name in ("same-event-id-once", "same-event-id-raced", "written-by-hand")),
        *(f"{OUTBOX}/{name}" for name in ("crowd-once-each", "second-row-of-an-event")),
        *(f"{DLQ}/effect-that-was-there", f"{DLQ}/replayed-item-is-resolved"),
        *(f"{RECOVERY}/{name}" for name in ("worker-frozen-past-its-claim", "worker-sessions-ended")),
        f"{RECOVERY}/database-restarted",
    ),
)
trigger(
    "outbox/done-is-not-done",
    "insert on event_outbox",
    "if session_user not in ('replay_service', 'replay_worker') then new.processed_at := null; new.dead_at := null;"
    " end if;",
    (f"{OUTBOX}/done-is-done",),
)
trigger(
    "outbox/effects-are-lost",
    "insert on agent_tasks",
    "return null;",
    (
        *(f"{OUTBOX}/effect-within-two-seconds", f"{OUTBOX}/effect-and-acknowledgement-together"),
        *(f"{LIFE}/all-of-an-item-together", f"{DLQ}/item-without-event-id"),
    ),
)
lost_if(
    "outbox/an-open-transaction-stops-all",
    "exists (select from pg_stat_activity where application_name = 'replaygate' and backend_xid is not null)",
    f"{OUTBOX}/open-transaction-stops-nobody",
    f"{RECOVERY}/long-transaction-held-open",
)
lost_if(
    "outbox/slow-events-are-never-done",
    "o.payload #>> '{drill,delay_ms}' = '5000'",
    f"{OUTBOX}/slow-event-comes-through",
)
lost_if(
    "outbox/poison-stops-everybody",
    another_if("b.company_id <> o.company_id and b.processed_at is null and b.payload ? 'drill'"),
    f"{OUTBOX}/poison-holds-no-other-tenant",
)
lost_if(
    "outbox/held-rows-block",
    "(select count(*) from public.event_outbox b where b.processed_at is null) > 500",
    "drill/held/others-do-not-wait",
)
trigger(
    "outbox/held-rows-are-dropped-by-their-age",
    "insert on event_outbox",
    "if new.inserted_at < now() - interval '1 day'"
    " and not public.is_feature_enabled('outbox.enabled', new.company_id) then new.processed_at := now(); end if;",
    ("drill/held/switched-off-is-not-delivered",),
)
for _name, _wait, _check in (
    ("outbox/waits-shrink", "date_trunc('minute', now()) + interval '3 hours' / new.attempts", "back-off-grows"),
    ("outbox/waits-have-no-jitter", f"{LATER} (secs => 2 * power(2, new.attempts))", "back-off-jittered"),
    ("outbox-failures/back-off-linear", f"{LATER} (secs => new.attempts * (1.8 + random() / 5))", "back-off-grows"),
    ("outbox-failures/back-off-constant", f"{LATER} (secs => 2 + random() / 2)", "back-off-grows"),
):
    trigger(
        _name,
        "update on event_outbox",
        f"if session_user = 'replay_worker' and new.attempts > old.attempts then new.next_attempt_at := {_wait};"
        " end if;",
        (f"{OUTBOX}/{_check}",),
    )
trigger(
    "outbox/tried-whenever-somebody-wakes-the-relay",
    "insert on event_outbox",
    "update public.event_outbox set attempts = attempts + 1 where next_attempt_at > now() + interval '50 minutes';",
    (f"{OUTBOX}/backs-off",),
    timing="after",
)
trigger(
    "dlq/items-are-never-settled",
    "update on dead_letter_queue",
    "if new.status = 'resolved' then new.status := 'replaying'; end if;",
    (
        *(f"{DLQ}/{name}" for name in ("replayed-item-is-resolved", "item-without-event-id", "effect-that-was-there")),
        *(f"{DLQ}/only-legal-transitions", f"{LIFE}/all-of-an-item-together"),
    ),
)
trigger(
    "dlq/everything-is-eligible",
    "insert or update on dead_letter_queue",
    "if tg_op = 'INSERT' then new.status := 'pending'; new.retry_after := now(); end if; new.max_retries := 99;",
    tuple(
        f"{DLQ}/{name}" for name in ("discarded-stays-discarded", "max-retries-is-the-end", "not-before-retry-after")
    ),
)
trigger(
    "dlq/one-event-id-for-all",
    "insert on event_outbox",
    "if new.replay_run_id is not null then new.event_id := '00000000-0000-4000-8000-00000000beef'; end if;",
    (f"{DLQ}/item-without-event-id", f"{DLQ}/letter-is-kept"),
)
planted(
    "outbox/not-durable",
    "alter table event_outbox set unlogged",
    "alter table event_outbox set logged",
    "from pg_class where relname = 'event_outbox' and relpersistence = 'u'",
    (f"{RECOVERY}/database-restarted",),
    "The outbox does not survive a crash of the database.",
)
lost_if(
    "outbox/watermark",
    another_if("b.company_id = o.company_id and b.id > o.id and b.processed_at < now()"),
    f"{OUTBOX}/late-commit-is-delivered",
)
lost_if(
    "outbox/poison-holds-the-company",
    another_if(
        "b.company_id = o.company_id and b.processed_at is null and b.payload ? 'drill' and b.event_id <> o.event_id"
    ),
    f"{OUTBOX}/poison-holds-no-other-key",
    f"{OUTBOX}/slow-event-holds-nobody",
)
lost_if(
    "outbox/dead-holds-its-key",
    another_if("b.company_id = o.company_id and b.aggregate_key = o.aggregate_key and b.dead_at is not null"),
    f"{OUTBOX}/dead-event-frees-its-key",
)
row(
    "outbox/delivered-before-due",
    "insert on event_outbox",
    f"if {GATE} then new.next_attempt_at := now(); end if;",
    "Events are delivered before they are due.",
    f"{OUTBOX}/not-before-it-is-due",
)
row(
    "outbox/claims-ignored",
    "insert on event_outbox",
    f"if {GATE} then new.claimed_until := null; end if;",
    "A claim of another worker is ignored: two work on one event.",
    f"{OUTBOX}/claimed-by-another",
)
row(
    "outbox/claims-never-expire",
    "insert or update on event_outbox",
    "if new.claimed_until is not null and new.processed_at is null and"
    f" (tg_op = 'INSERT' or {WORKER} or old.claimed_until = 'infinity') then new.claimed_until := 'infinity'; end if;",
    "A claim never expires: what a killed worker held is never delivered.",
    f"{OUTBOX}/expired-claim-is-taken-up",
    f"{RECOVERY}/worker-killed-in-each-phase",
    f"{RECOVERY}/worker-killed-in-a-replay",
)
row(
    "outbox/order-not-kept",
    "insert on event_outbox",
    "new.aggregate_key := null;",
    "Events lose their key: they are delivered in any order.",
    f"{OUTBOX}/failing-event-holds-its-key",
    f"{DLQ}/letter-is-kept",
)
row(
    "outbox-failures/no-dead-letter",
    "insert on dead_letter_queue",
    f"if {WORKER} then return null; end if;",
    "A dead event has no dead letter: it is lost.",
    f"{OUTBOX}/dead-letter-once",
    f"{OUTBOX}/dead-letter-in-one-transaction",
)
row(
    "outbox-failures/letter-without-key",
    "insert on dead_letter_queue",
    f"if {WORKER} then new.aggregate_key := null; end if;",
    "The dead letter loses the key of its event: after a replay it is out of order.",
    f"{OUTBOX}/dead-letter-is-the-event",
)
row(
    "outbox-failures/letters-without-a-key-share-one",
    "insert on dead_letter_queue",
    f"if {WORKER} then new.aggregate_key := coalesce(new.aggregate_key, ''); end if;",
    "The dead letter of an event without a key has the empty one: after a replay each waits for all before it.",
    f"{OUTBOX}/dead-letter-is-the-event",
)
row(
    "outbox-failures/letter-key-is-cut",
    "insert on dead_letter_queue",
    f"if {WORKER} then new.aggregate_key := left(new.aggregate_key, 64); end if;",
    "The dead letter has the first 64 letters of the key: events of two keys wait for each other after a replay.",
    f"{OUTBOX}/dead-letter-is-the-event",
)
row(
    "dlq/replayed-key-is-cut",
    "insert on event_outbox",
    "if new.replay_run_id is not null then new.aggregate_key := left(new.aggregate_key, 64); end if;",
    "A replayed item has the first 64 letters of its key: it does not wait for the events of its own.",
    f"{DLQ}/letter-is-kept",
)
row(
    "outbox-failures/dead-at-once",
    "update on event_outbox",
    f"if {WORKER} and new.attempts = 1 and new.processed_at is null then new.dead_at := now(); end if;",
    "A failing event is dead after its first attempt.",
    f"{OUTBOX}/failed-is-tried-again",
    f"{OUTBOX}/dead-letter-in-one-transaction",
)
row(
    "outbox-failures/failure-is-processed",
    "update on event_outbox",
    f"if {WORKER} and new.attempts > old.attempts then new.dead_at := null; new.processed_at := now(); end if;",
    "A failed delivery is marked as processed: the event is lost.",
    f"{OUTBOX}/failing-is-not-processed",
)
row(
    "outbox-failures/processed-at-claim",
    "update on event_outbox",
    "if new.claimed_until > now() and new.processed_at is null then new.processed_at := now(); end if;",
    "An event is marked as processed when it is claimed: a killed worker loses it.",
    f"{OUTBOX}/processed-after-its-effect",
)
row(
    "lifecycle/retry-not-counted",
    "update on dead_letter_queue",
    "new.retry_count := old.retry_count;",
    "A failed item does not count its retry.",
    f"{LIFE}/failed-item-is-pending-again",
    f"{LIFE}/stop-leaves-the-rest-untouched",
)
trigger(
    "lifecycle/failed-item-made-anew",
    "update on dead_letter_queue",
    "if new.retry_count > old.retry_count then"
    " new.created_at := clock_timestamp() + (1 - old.retry_count) * interval '1 second'; end if;",
    (f"{LIFE}/failed-item-is-pending-again",),
    "A failed item bears the time of its failure as that of its creation: it goes to the end of the line.",
    names=("created_at",),
)
row(
    "lifecycle/stops-too-early",
    "update on replay_runs",
    "if new.status = 'completed' and new.failure_count > 0 then new.status := 'stopped'; end if;",
    "A run is stopped at its first failure.",
    f"{LIFE}/twenty-percent-is-allowed",
    f"{LIFE}/four-failures-do-not-stop",
)
trigger(
    "lifecycle/nothing-refunded",
    "update on replay_budgets",
    f"if {WORKER} then return old; end if;",
    (f"{LIFE}/stop-refunds-the-rest",),
    "The budget of what a stopped run did not attempt is not refunded.",
    first=True,
)
row(
    "lifecycle/places-25",
    "insert on event_outbox",
    "if new.replay_run_id is not null then new.claimed_until := now() + interval '1 second'; end if;",
    "A run has all of its items in flight instead of at most 10.",
    f"{LIFE}/ten-in-flight",
)
_ITS_KEY = "aggregate_key = new.aggregate_key and company_id = new.company_id and status = 'pending'"
for _name, _set, _breaks in (
    (
        "a-success-resolves-its-key",
        "status = 'resolved'",
        "The success of an item resolves all that wait with its key.",
    ),
    ("a-success-ends-waits", "retry_after = now()", "The success of an item ends the wait of those with its key."),
):
    trigger(
        f"run-end/{_name}",
        "update on dead_letter_queue",
        f"if old.status = 'replaying' and new.status = 'resolved' then"
        f" update public.dead_letter_queue set {_set} where {_ITS_KEY}; end if;",
        (f"{DLQ}/replayed-item-is-resolved",),
        _breaks,
        timing="after",
    )
trigger(
    "run-end/a-stop-switches-replays-off",
    "update on replay_runs",
    "if new.status = 'stopped' and old.status = 'started' then"
    " insert into public.feature_flags (key, company_id, enabled) values ('dlq.replay.enabled', new.company_id, false)"
    " on conflict (key, company_id) do update set enabled = false; end if;",
    (f"{LIFE}/stop-leaves-the-rest-untouched",),
    "A stop switches the replays of its tenant off.",
    timing="after",
)
PAUSES = """ insert into public.agent_controls (company_id, agents_paused)
values (new.company_id, true) on conflict (company_id) do update set agents_paused = true; end if;"""
trigger(
    "run-end/a-stop-pauses",
    "update on replay_runs",
    f"if new.status = 'stopped' and old.status = 'started' then{PAUSES}",
    (f"{LIFE}/stop-leaves-the-rest-untouched",),
    "A stop pauses its tenant.",
    timing="after",
)
trigger(
    "outbox-failures/a-death-pauses",
    "update on event_outbox",
    f"if new.dead_at is not null and old.dead_at is null then{PAUSES}",
    ("drill/outbox/dead-event-frees-its-key",),
    "An event that is given up pauses its tenant.",
    timing="after",
)
row(
    "run-end/failures-count-as-success",
    "update on replay_runs",
    "if new.status = 'completed' then new.success_count := new.target_count; new.failure_count := 0; end if;",
    "A failure counts as a success in the run.",
    f"{LIFE}/run-counts-add-up",
    f"{LIFE}/four-failures-do-not-stop",
)
trigger(
    "run-end/audited-without-failures",
    "insert on audit_logs",
    "if new.action = 'dlq_replay' then new.failure_count := 0; end if;",
    (f"{LIFE}/run-counts-add-up",),
    "The audit of a run's end always says that nothing failed.",
    first=True,
)
row(
    "run-end/stopped-is-completed",
    "update on replay_runs",
    "if new.status = 'stopped' then new.status := 'completed'; end if;",
    "A stopped run is called completed.",
    f"{LIFE}/stops-above-twenty-percent",
    f"{LIFE}/stops-soon-above-a-fifth",
)
row(
    "run-end/five-attempts",
    "update on event_outbox",
    "if new.replay_run_id is not null and new.dead_at is not null then new.dead_at := null;"
    " new.replay_run_id := null; new.claimed_until := null; end if;",
    "A replayed item gets more than one attempt.",
    f"{LIFE}/one-attempt",
)
for _name, _pattern, _put, _breaks in (
    (
        "keys-in-another-case",
        '"([a-z]+)([A-Z][a-z]+)":',
        r'"\1_\2":',
        "The names of a payload's members are put into the house's own style on their way to the outbox.",
    ),
    (
        "times-read-as-times",
        r'"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\+02:00"',
        r'"\1.000+02:00"',
        "Text that looks like a time is read as one and written anew on its way to the outbox.",
    ),
):
    row(
        f"outbox/{_name}",
        "insert on event_outbox",
        f"new.payload := regexp_replace(new.payload::text, '{_pattern}', '{_put}', 'g')::jsonb;",
        _breaks,
        f"{OUTBOX}/payload-unchanged",
        f"{DLQ}/letter-is-kept",
    )
trigger(
    "outbox/notice-carries-the-payload",
    "insert on event_outbox",
    "perform pg_notify('event_outbox_planted', new.payload::text);",
    (f"{OUTBOX}/large-payload-is-delivered", f"{DLQ}/large-item-is-replayed"),
    "The notice of a new row carries its payload: rows over 8000 bytes are refused.",
)
