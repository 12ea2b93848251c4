"""Faults that only the rows show: lost and doubled events, stuck runs, drifted budgets, backlogs, dead workers."""

from collections.abc import Callable
from typing import Any

from faults.catalogue import Fault, declare, statement
from faults.outbox import is_done, put
from faults.probe import TABLES, Probe

SPOT = "sql/spot"
COMPANY = "00000000-0000-4000-8000-0000000000d7"
"""A company that only these faults use."""

ADD = f"INSERT INTO companies (id, name) VALUES ('{COMPANY}', 'Faulty');"
_CLEAR = "; ".join(f"DELETE FROM {t} WHERE company_id = '{COMPANY}'" for t in TABLES)
GONE = f"{_CLEAR}; DELETE FROM companies WHERE id = '{COMPANY}'"


def rows(
    fault_id: str, breaks: str, sql: str, ask: str, checks: tuple[str, ...], *, area: str = "data", **more: Any
) -> None:
    """Declare rows of COMPANY as a fault; `ask` is true while they exist."""
    witness: Callable[[Probe], bool] = lambda probe: bool(probe.value(f"{ask} AND company_id = '{COMPANY}'"))  # noqa: E731
    statement(f"{area}/{fault_id}", breaks, f"{ADD} {sql}", GONE, witness, checks, **more)


rows(
    "processed-without-effect",
    "Events are marked as processed and have no effect.",
    f"""INSERT INTO event_outbox (company_id, event_type, inserted_at, processed_at)
        SELECT '{COMPANY}', 'order.paid', now() - interval '40 min', now() - interval '30 min'
        FROM generate_series(1, 5)""",
    "SELECT count(*) = 5 FROM event_outbox WHERE processed_at IS NOT NULL",
    (f"{SPOT}/processed-has-effect",),
    names=("completed agent task",),
)
rows(
    "event-without-outbox-row",
    "Business rows have lost their event: neither an outbox row nor an effect.",
    f"""INSERT INTO events (company_id, event_type, created_at, path)
        SELECT '{COMPANY}', 'order.paid', now() - interval '40 min', 'outbox' FROM generate_series(1, 5)""",
    "SELECT count(*) = 5 FROM events WHERE true",
    (f"{SPOT}/outbox-conserves-events",),
    names=("event",),
)
rows(
    "dead-without-letter",
    "Events are dead in the outbox and in no dead letter.",
    f"""INSERT INTO event_outbox (company_id, event_type, inserted_at, dead_at, attempts)
        SELECT '{COMPANY}', 'order.paid', now() - interval '40 min', now() - interval '30 min', 5
        FROM generate_series(1, 3)""",
    "SELECT count(*) = 3 FROM event_outbox WHERE dead_at IS NOT NULL",
    (f"{SPOT}/dead-are-dead-lettered",),
    names=("dead",),
)
rows(
    "poison-event-tried-for-ever",
    "An event fails again and again and is never given up.",
    f"""INSERT INTO event_outbox (company_id, event_type, inserted_at, attempts, next_attempt_at)
        SELECT '{COMPANY}', 'order.paid', now() - interval '4 h', 250, now() + interval '30 min'""",
    "SELECT count(*) = 1 FROM event_outbox WHERE attempts > 200",
    (f"{SPOT}/outbox-attempts-end",),
    names=("attempts",),
)
rows(
    "two-letters-of-one-event",
    "An event waits in two dead letters: both replays will have their effect.",
    f"""INSERT INTO dead_letter_queue (company_id, event_id, event_type, payload, error_type, retry_after)
        SELECT '{COMPANY}', '{COMPANY}', 'order.paid', '{{}}', 'timeout', now() + interval '1 d'
        FROM generate_series(1, 2)""",
    "SELECT count(*) = 2 FROM dead_letter_queue WHERE true",
    (f"{SPOT}/one-dead-letter-per-event",),
    names=("dead",),
)
rows(
    "replaying-without-a-way",
    "Dead letters are `replaying` for hours and nothing is on its way.",
    f"""INSERT INTO dead_letter_queue (company_id, event_id, event_type, payload, error_type, status, created_at)
        SELECT '{COMPANY}', gen_random_uuid(), 'order.paid', '{{}}', 'timeout', 'replaying', now() - interval '3 h'
        FROM generate_series(1, 3)""",
    "SELECT count(*) = 3 FROM dead_letter_queue WHERE status = 'replaying'",
    (f"{SPOT}/replaying-items-are-on-their-way",),
    names=("replaying",),
)
rows(
    "run-stuck",
    "A run is `started` since hours; nothing of it moves.",
    f"""INSERT INTO replay_runs (company_id, status, target_count, requested_at)
        VALUES ('{COMPANY}', 'started', 3, now() - interval '5 h')""",
    "SELECT count(*) = 1 FROM replay_runs WHERE status = 'started'",
    (f"{SPOT}/runs-not-stuck",),
    names=("started", "run"),
)
rows(
    "run-not-audited",
    "A run has no row in the audit trail.",
    f"""INSERT INTO replay_runs (company_id, status, target_count, success_count, requested_at, completed_at)
        VALUES ('{COMPANY}', 'completed', 3, 3, now() - interval '40 min', now() - interval '30 min')""",
    "SELECT count(*) = 1 FROM replay_runs WHERE status = 'completed'",
    (f"{SPOT}/runs-are-audited", f"{SPOT}/run-ends-are-audited", "alert/audit-gaps"),
    names=("run",),
)
rows(
    "run-counts-wrong",
    "A completed run settled more items than it had.",
    f"""INSERT INTO replay_runs
        (company_id, status, target_count, success_count, failure_count, requested_at, completed_at)
        VALUES ('{COMPANY}', 'completed', 3, 5, 1, now() - interval '40 min', now() - interval '30 min')""",
    "SELECT count(*) = 1 FROM replay_runs WHERE success_count = 5",
    (f"{SPOT}/run-counts",),
    names=("count", "run"),
)
rows(
    "rows-overdue",
    "Thirty events wait for an hour; nothing delivers them.",
    f"""INSERT INTO event_outbox (company_id, event_type, inserted_at, claimed_until)
        SELECT '{COMPANY}', 'order.paid', now() - interval '1 h', now() + interval '1 d' FROM generate_series(1, 30);
        INSERT INTO feature_flags (key, company_id, enabled, rollout_percentage, updated_at)
        VALUES ('outbox.enabled', '{COMPANY}', true, 100, now() - interval '2 h')""",
    "SELECT count(*) = 30 FROM event_outbox WHERE claimed_until > now()",
    ("alert/outbox-lag", "alert/pending-outbox", f"{SPOT}/claims-within-lease"),
    names=("lag", "outbox", "claim"),
)
rows(
    "dead-letters-pile-up",
    "Twenty-five dead letters of one company wait, all of them since minutes, and their retries are used up.",
    f"""INSERT INTO dead_letter_queue (company_id, event_type, payload, error_type, retry_count, max_retries)
        SELECT '{COMPANY}', 'order.paid', '{{}}', 'timeout', 5, 5 FROM generate_series(1, 25)""",
    "SELECT count(*) = 25 FROM dead_letter_queue WHERE status = 'pending'",
    ("alert/dlq-size", "alert/dlq-growth", "alert/dlq-exhausted", "load/dlq_items_count/count"),
    names=("dlq", "dead", "items"),
)
rows(
    "agents-fail",
    "A third of the agents' work fails.",
    f"""INSERT INTO agent_tasks (company_id, agent_name, status, created_at, updated_at)
        SELECT '{COMPANY}', 'a', CASE WHEN n % 3 = 0 THEN 'failed' ELSE 'completed' END, now(), now()
        FROM generate_series(1, 600) n""",
    "SELECT count(*) = 600 FROM agent_tasks WHERE true",
    ("alert/agent-success", "alert/agent-success-burn-*", "load/agent_success/rate"),
    names=("agent", "success", "failed"),
)
rows(
    "budget-overcharged",
    "A budget says that more was used than any run moved.",
    f"INSERT INTO replay_budgets (company_id, daily_used, monthly_used) VALUES ('{COMPANY}', 77, 77)",
    "SELECT count(*) = 1 FROM replay_budgets WHERE daily_used = 77",
    (f"{SPOT}/budget-not-overcharged",),
    names=("charged",),
)

rows(
    "event-forgotten",
    "An event that took the direct path has left no trace; those before it have their effects.",
    f"""WITH e AS (
          INSERT INTO events (company_id, event_type, path, created_at)
          SELECT '{COMPANY}', 'order.paid', 'direct', now() - n * interval '5 min' FROM generate_series(4, 7) n
          RETURNING id, company_id, created_at)
        INSERT INTO agent_tasks (company_id, event_id, status, created_at, updated_at)
        SELECT company_id, id, 'completed', created_at, created_at FROM e
        WHERE created_at < now() - interval '22 min'""",
    "SELECT count(*) = 4 FROM events WHERE path = 'direct'",
    (f"{SPOT}/outbox-forgets-no-event",),
    names=("event",),
)
rows(
    "event-under-another-tenant",
    "A tenant has the outbox row of another tenant's event.",
    f"""INSERT INTO event_outbox (event_id, company_id, event_type, inserted_at, processed_at)
        SELECT id, '{COMPANY}', event_type, created_at, created_at FROM events WHERE company_id <> '{COMPANY}'
        ORDER BY created_at DESC LIMIT 1""",
    "SELECT count(*) = 1 FROM event_outbox WHERE true",
    (f"{SPOT}/tenants-keep-their-rows",),
    names=("outbox row",),
)
rows(
    "effect-under-a-new-id",
    "A delivery gave its event a new id: the agent could not know it, and did its work again.",
    f"""INSERT INTO agent_tasks (company_id, event_id, status, created_at, updated_at)
        VALUES ('{COMPANY}', gen_random_uuid(), 'completed', now(), now())""",
    "SELECT count(*) = 1 FROM agent_tasks WHERE event_id IS NOT NULL",
    (f"{SPOT}/effects-have-their-event",),
    names=("event",),
)
rows(
    "key-lost-on-the-way",
    "The outbox row of an event has another key than the event.",
    f"""WITH e AS (
          INSERT INTO events (company_id, event_type, aggregate_key, created_at)
          VALUES ('{COMPANY}', 'order.paid', 'order-1', now() - interval '40 min') RETURNING *),
        o AS (
          INSERT INTO event_outbox (event_id, company_id, event_type, inserted_at, processed_at)
          SELECT id, company_id, event_type, created_at, created_at + interval '1 s' FROM e RETURNING *)
        INSERT INTO agent_tasks (company_id, event_id, status, created_at, updated_at)
        SELECT company_id, event_id, 'completed', processed_at, processed_at FROM o""",
    "SELECT count(*) = 1 FROM event_outbox WHERE aggregate_key IS NULL",
    (f"{SPOT}/outbox-keeps-type-and-key",),
    names=("key",),
)
rows(
    "key-out-of-order",
    "An event was delivered before an older one of its key.",
    f"""WITH o AS (
          INSERT INTO event_outbox (company_id, event_type, aggregate_key, inserted_at, processed_at)
          VALUES ('{COMPANY}', 'order.paid', 'order-1', now() - interval '50 min', now() - interval '20 min'),
                 ('{COMPANY}', 'order.cancelled', 'order-1', now() - interval '40 min', now() - interval '30 min')
          RETURNING *)
        INSERT INTO agent_tasks (company_id, event_id, status, created_at, updated_at)
        SELECT company_id, event_id, 'completed', processed_at, processed_at FROM o""",
    "SELECT count(*) = 2 FROM event_outbox WHERE aggregate_key = 'order-1'",
    (f"{SPOT}/outbox-order-kept",),
    names=("key",),
)
rows(
    "sequence-left-behind",
    "Tasks were restored with their numbers, and the sequence that numbers new ones was not.",
    f"""INSERT INTO agent_tasks (id, company_id, status, created_at, updated_at)
        VALUES (900000000, '{COMPANY}', 'completed', now(), now())""",
    "SELECT count(*) = 1 FROM agent_tasks WHERE id = 900000000",
    (f"{SPOT}/sequences-ahead",),
    names=("agent_tasks",),
)

statement(
    "data/limit-let-through",
    "Nine requests of one tenant and address were admitted within two minutes.",
    f"""INSERT INTO edge_rate_limits (key, hits)
        SELECT 'replay:{COMPANY}:192.0.2.1', array_agg(now() - n * interval '12 s' ORDER BY n DESC)
        FROM generate_series(1, 9) n""",
    f"DELETE FROM edge_rate_limits WHERE key LIKE 'replay:{COMPANY}:%'",
    lambda p: bool(p.value(f"SELECT count(*) FROM edge_rate_limits WHERE key LIKE 'replay:{COMPANY}:%'")),
    (f"{SPOT}/rate-limit-exact",),
    names=("admitted",),
)
statement(
    "data/companies-of-an-old-backup",
    "No tenant is in companies: after a restore they have other ids.",
    f"""UPDATE companies SET id = ('f' || substr(id::text, 2))::uuid WHERE id::text LIKE '00000000-%';
        INSERT INTO events (company_id, event_type, path) VALUES ('{COMPANY}', 'order.paid', 'direct')""",
    f"""UPDATE companies SET id = ('0' || substr(id::text, 2))::uuid WHERE id::text LIKE 'f0000000-%';
        DELETE FROM events WHERE company_id = '{COMPANY}'""",
    lambda p: bool(p.value("SELECT count(*) FROM companies WHERE id::text LIKE 'f0000000-%'")),
    (f"{SPOT}/tenants-exist",),
    names=("companies",),
)
statement(
    "data/flag-switched-off",
    "The global row of dlq.replay.enabled is off.",
    "UPDATE feature_flags SET enabled = false WHERE key = 'dlq.replay.enabled' AND company_id IS NULL",
    "UPDATE feature_flags SET enabled = true WHERE key = 'dlq.replay.enabled' AND company_id IS NULL",
    lambda p: not p.value("SELECT enabled FROM feature_flags WHERE key = 'dlq.replay.enabled' AND company_id IS NULL"),
    (f"{SPOT}/feature-flags-status",),
    names=("dlq.replay.enabled",),
)
statement(
    "data/fleet-paused",
    "All agents are paused, and nobody remembers why.",
    "UPDATE agent_controls SET agents_paused = true WHERE company_id IS NULL",
    "UPDATE agent_controls SET agents_paused = false WHERE company_id IS NULL",
    lambda p: bool(p.value("SELECT agents_paused FROM agent_controls WHERE company_id IS NULL")),
    (f"{SPOT}/fleet-not-paused",),
    names=("paused",),
)


NOT_DELIVERED = ("drill/outbox/effect-within-two-seconds", "alert/relay-heartbeat")


def _nothing_is_delivered(probe: Probe) -> bool:
    with probe.tenant() as company:
        return not is_done(probe, put(probe, company), 4)


declare(
    Fault(
        "process/worker-stands-still",
        "The worker stands still: nothing is delivered.",
        "process",
        _nothing_is_delivered,
        event="stop-worker",
        checks=(*NOT_DELIVERED, "load/outbox_lag_ms/*", "load/outbox_drained/rate"),
        names=("effect", "heartbeat", "lag", "drained"),
    )
)
declare(
    Fault(
        "process/worker-dead",
        "The worker is dead and nobody starts it again.",
        "process",
        _nothing_is_delivered,
        event="kill-worker",
        checks=(*NOT_DELIVERED, "load/outbox_lag_ms/*", "load/outbox_drained/rate"),
        names=("effect", "heartbeat", "lag", "drained"),
    )
)
