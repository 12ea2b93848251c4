"""Faults that only a comparison of tenants shows: the release harms those who have it, each of them a little.

A fleet of 200 tenants stands under a step to 50 %, half an hour old, with as long a past; then a release did something
to the events of those who have it.
"""

from faults.catalogue import statement
from faults.probe import Probe

MINUTES = 30
EACH = 80
TENANTS = "(SELECT md5('cohort ' || n)::uuid FROM generate_series(1, 200) n)"
_TABLES = ("event_outbox", "events", "dead_letter_queue", "agent_tasks")
_CLEAR = "; ".join(f"DELETE FROM {table} WHERE company_id IN {TENANTS}" for table in _TABLES)
UNDO = f"""{_CLEAR}; DELETE FROM companies WHERE id IN {TENANTS};
    UPDATE feature_flags SET rollout_percentage = 10, updated_at = now() - interval '25 hours'
    WHERE key = 'outbox.enabled' AND company_id IS NULL"""


def fleet(minutes: int, each: int, past: int) -> str:
    """Statements that make the fleet: so many minutes after the step, with so many events of each tenant since then and
    before it. All is well: the events of those who have the release go through the outbox, and have their effect as all
    others.
    """
    return f"""
    UPDATE feature_flags
    SET enabled = true, rollout_percentage = 50, updated_at = now() - interval '{minutes + 1} minutes'
    WHERE key = 'outbox.enabled' AND company_id IS NULL;
    INSERT INTO companies (id, name) SELECT md5('cohort ' || n)::uuid, 'Cohort ' || n FROM generate_series(1, 200) n;
    WITH tenants AS MATERIALIZED (
      SELECT n, c.id AS company_id, is_feature_enabled('outbox.enabled', c.id) AS is_on
      FROM generate_series(1, 200) n JOIN companies c ON c.id = md5('cohort ' || n)::uuid
    ), made AS MATERIALIZED (
      SELECT md5(n || ' event ' || at)::uuid AS id, company_id, is_on AND at > 0 AS via_outbox,
             now() - interval '{minutes + 1} minutes' + interval '{minutes} minutes' * (at - 0.5) / {each} AS created_at
      FROM tenants CROSS JOIN generate_series(1 - {past}, {each}) at
      ORDER BY at
    ), emitted AS (
      INSERT INTO events (id, company_id, event_type, path, created_at)
      SELECT id, company_id, 'order.paid', CASE WHEN via_outbox THEN 'outbox' ELSE 'direct' END, created_at FROM made
    ), delivered AS (
      INSERT INTO event_outbox (event_id, company_id, event_type, inserted_at, processed_at, attempts)
      SELECT id, company_id, 'order.paid', created_at, created_at + interval '0.3 s', 1 FROM made WHERE via_outbox
    )
    INSERT INTO agent_tasks (company_id, event_id, status, created_at, updated_at)
    SELECT company_id, id, 'completed', created_at + interval '0.3 s', created_at + interval '0.3 s' FROM made"""


FLEET = fleet(MINUTES, EACH, EACH)


def hit(share: float) -> str:
    """A query of this share of the events of those who have the release, since they have it."""
    return f"""(SELECT id, company_id, created_at FROM events WHERE company_id IN {TENANTS} AND path = 'outbox'
        AND ('x' || substr(md5(id::text), 1, 7))::bit(28)::int < {share} * 268435456)"""


def lost(share: float) -> str:
    """These events have no effect; no other check sees that, because they have no outbox row."""
    return f"""DELETE FROM agent_tasks t USING {hit(share)} e WHERE t.event_id = e.id;
    DELETE FROM event_outbox o USING {hit(share)} e WHERE o.event_id = e.id;
    UPDATE events o SET path = 'direct' FROM {hit(share)} e WHERE o.id = e.id"""


def later(share: float, seconds: float) -> str:
    """Their effects come so many seconds later."""
    return f"""UPDATE agent_tasks t SET updated_at = updated_at + interval '{seconds} s'
    FROM {hit(share)} e WHERE t.event_id = e.id"""


def _are_there(probe: Probe) -> bool:
    return bool(probe.value(f"SELECT count(*) = 200 FROM companies WHERE id IN {TENANTS}"))


DONE = {
    "events-lost": ("Events of the tenants with the release have no effect, one in thirty.", lost(0.033), ("success",)),
    "dead-letters": (
        "Events of the tenants with the release are dead letters, one in twenty.",
        f"""INSERT INTO dead_letter_queue (company_id, event_id, event_type, error_type, status, created_at)
        SELECT company_id, id, 'order.paid', 'timeout', 'resolved', created_at FROM {hit(0.05)} e""",
        ("dead-letters",),
    ),
    "agents-fail": (
        "The agents of the tenants with the release fail at one task in thirty.",
        f"UPDATE agent_tasks t SET status = 'failed' FROM {hit(0.033)} e WHERE t.event_id = e.id",
        ("agent-success", "success"),
    ),
    "slower": ("Events of the tenants with the release wait for four seconds.", later(1, 4), ("lag-p50", "lag-p95")),
    "slower-tail": ("Every fifth event of the tenants with the release waits long.", later(0.2, 9), ("lag-p95",)),
    "other-tenants": (
        "The service gives the release to fewer tenants than its function names.",
        f"""DELETE FROM event_outbox WHERE company_id IN {TENANTS} AND company_id::text < 'c';
        UPDATE events SET path = 'direct' WHERE company_id IN {TENANTS} AND company_id::text < 'c'""",
        ("share",),
    ),
    "tenants-fall-silent": (
        "Of one in eight tenants with the release no event is written down any more.",
        f"""DELETE FROM agent_tasks t USING {hit(1)} e WHERE t.event_id = e.id AND e.company_id::text < '2';
        DELETE FROM event_outbox o USING {hit(1)} e WHERE o.event_id = e.id AND e.company_id::text < '2';
        DELETE FROM events WHERE company_id IN {TENANTS} AND path = 'outbox' AND company_id::text < '2'""",
        ("share",),
    ),
    "two-effects": (
        "Events of the tenants with the release have two effects, one in twenty: no constraint forbids that.",
        f"""ALTER TABLE agent_tasks DROP CONSTRAINT agent_tasks_event_id_key;
        CREATE INDEX agent_tasks_event_idx ON agent_tasks (event_id);
        INSERT INTO agent_tasks (company_id, event_id, status, created_at, updated_at)
        SELECT company_id, id, 'completed', created_at, created_at + interval '1 s' FROM {hit(0.05)} e""",
        ("duplicates",),
    ),
}
"""Name -> what breaks, what the release did to the fleet, and the checks that see it."""

CONSTRAINED = """; DROP INDEX agent_tasks_event_idx;
    ALTER TABLE agent_tasks ADD CONSTRAINT agent_tasks_event_id_key UNIQUE (event_id)"""

for _name, (_breaks, _sql, _checks) in DONE.items():
    statement(
        f"cohorts/{_name}",
        _breaks,
        f"{FLEET};\n{_sql}",
        UNDO + CONSTRAINED * (_name == "two-effects"),
        _are_there,
        tuple(f"cohort/{check}" for check in _checks),
        names=("tenants",),
    )
