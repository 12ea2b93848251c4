"""Faults that only an alert sees: of the last minutes, or of what the server has left."""

from functools import partial

from faults.catalogue import statement
from faults.data import ADD, COMPANY, GONE, rows

_burst = partial(rows, area="alerts")

_burst(
    "replays-fail",
    "Most of what was replayed just now failed again.",
    f"""INSERT INTO replay_runs
        (company_id, status, target_count, success_count, failure_count, requested_at, completed_at)
        SELECT '{COMPANY}', 'completed', 10, 4, 6, now() - interval '2 min', now() - interval '1 min'
        FROM generate_series(1, 9)""",
    "SELECT count(*) = 9 FROM replay_runs WHERE failure_count = 6",
    ("alert/replay-failure-rate",),
    names=("items failed",),
)
_burst(
    "runs-crowd",
    "Hundreds of runs are active at the same time.",
    f"""INSERT INTO replay_runs (company_id, status, target_count)
        SELECT '{COMPANY}', 'started', 3 FROM generate_series(1, 600)""",
    "SELECT count(*) = 600 FROM replay_runs WHERE status = 'started'",
    ("alert/active-replays",),
    names=("runs are active",),
)
_burst(
    "deliveries-slow-down",
    "Events that took a second to be delivered now take twenty.",
    f"""INSERT INTO event_outbox (company_id, event_type, inserted_at, processed_at)
        SELECT '{COMPANY}', 'order.paid', at, at + CASE WHEN n < 90 THEN interval '20 s' ELSE interval '1 s' END
        FROM generate_series(4, 303) n, LATERAL (SELECT now() - n * interval '6 s') sent(at)""",
    "SELECT count(*) = 300 FROM event_outbox WHERE processed_at IS NOT NULL",
    ("alert/performance-degradation",),
    names=("p95 20",),
)


def _refusals(fault_id: str, breaks: str, code: str, check: str, name: str) -> None:
    """Declare thirty refusals of COMPANY in the audit trail as a fault. They go with their whole chain."""
    statement(
        f"alerts/{fault_id}",
        breaks,
        f"""{ADD} SELECT append_audit('dlq_replay_refused', 'gate', '{COMPANY}', 0, 0, 0, '{{"code": "{code}"}}', NULL)
            FROM generate_series(1, 30)""",
        f"""ALTER TABLE audit_logs DISABLE TRIGGER USER; DELETE FROM audit_logs WHERE scope = '{COMPANY}';
            DELETE FROM audit_heads WHERE scope = '{COMPANY}'; ALTER TABLE audit_logs ENABLE TRIGGER USER;
            ALTER TABLE audit_logs ENABLE ALWAYS TRIGGER audit_logs_chain;
            ALTER TABLE audit_logs ENABLE ALWAYS TRIGGER audit_logs_append_only; {GONE}""",
        lambda p: bool(p.value(f"SELECT count(*) FROM audit_logs WHERE scope = '{COMPANY}'")),
        (check,),
        names=(name,),
    )


_refusals(
    "limit-hit-in-a-loop",
    "A caller asks again and again, and is refused by the rate limit.",
    "rate_limited",
    "alert/rate-limit-violations",
    COMPANY,
)
_refusals(
    "keys-used-again",
    "A client sends other requests under keys that are used.",
    "idempotency_key_reused",
    "alert/idempotency-collisions",
    "collisions",
)
statement(
    "alerts/disk-nearly-full",
    "The database is as large as its disk.",
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET replaygate.disk_gib = 0.005', current_database()); END $$",
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET replaygate.disk_gib', current_database()); END $$",
    lambda p: bool(p.value("SELECT count(*) FROM pg_db_role_setting WHERE setconfig::text LIKE '%disk_gib%'")),
    ("alert/disk",),
    names=("GiB",),
)
