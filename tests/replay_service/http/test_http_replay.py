"""The effect of a replay: order of refusals, locked rows, ids that are cut. The drills show the rest."""

from typing import Any

import httpx
import psycopg

from tests.replay_service.http.service_process import Db, add_items, forget_limit, post, value


def replay(http: httpx.Client, db: Db, company: str, **fields: Any) -> dict[str, Any]:
    """A replay that must succeed, outside the rate limit. Returns the body."""
    forget_limit(db, company)
    answer = post(http, {"company_id": company, **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def refused(http: httpx.Client, db: Db, company: str, **fields: Any) -> tuple[int, str]:
    """(status, code) of a replay outside the rate limit."""
    forget_limit(db, company)
    answer = post(http, {"company_id": company, **fields})
    return answer.status_code, answer.json().get("code", "")


def digest(db: Db, company: str) -> list[Any]:
    """Everything that a tenant has, audit and rate limit apart."""
    return [
        db.execute(
            f"SELECT to_jsonb(t), xmin::text FROM {table} t WHERE company_id = %s ORDER BY 1".encode(), [company]
        ).fetchall()
        for table in ("dead_letter_queue", "event_outbox", "replay_runs", "replay_budgets", "events", "agent_tasks")
    ]


def test_ids_that_are_cut_are_in_no_list(http: httpx.Client, db: Db, company: str) -> None:
    """Ids beyond `max` are neither unknown nor ineligible."""
    cut = add_items(db, company, 3)
    body = replay(http, db, company, dlq_ids=cut, max=2)
    assert (body["items"], body["not_found"], body["ineligible"]) == (cut[:2], [], [])


def test_rows_that_others_hold_are_skipped(http: httpx.Client, db: Db, company: str, service: Any) -> None:
    """A locked item blocks neither a run nor a dry run, which locks nothing and shows it."""
    ids = add_items(db, company, 3)
    with psycopg.connect(service.database_url) as other:
        other.execute("SELECT 1 FROM dead_letter_queue WHERE id = %s FOR UPDATE", [ids[0]])
        assert replay(http, db, company, dry_run=True)["items"] == ids
        assert replay(http, db, company, dlq_ids=ids[:2])["ineligible"] == ids[:1]


def test_without_budget_control_nothing_is_charged(http: httpx.Client, db: Db, company: str) -> None:
    """With the flag off the limits neither cut nor count, and the run remembers that it was not charged."""
    add_items(db, company, 2)
    db.execute("INSERT INTO replay_budgets (company_id, daily_limit) VALUES (%s, 0)", [company])
    db.execute("INSERT INTO feature_flags (key, company_id) VALUES ('dlq.replay.budget_control', %s)", [company])
    assert replay(http, db, company)["target_count"] == 2
    assert value(db, "SELECT daily_used FROM replay_budgets WHERE company_id = %s", company) == 0
    assert value(db, "SELECT budget_charged FROM replay_runs WHERE company_id = %s", company) == 0


def test_flags_and_pause_refuse_in_order(http: httpx.Client, db: Db, company: str) -> None:
    """A flag that is off is named, comes before pause, pause before budget; nothing is touched."""
    add_items(db, company, 1)
    db.execute("INSERT INTO replay_budgets (company_id, daily_limit) VALUES (%s, 0)", [company])
    db.execute("INSERT INTO agent_controls (company_id, agents_paused) VALUES (%s, true)", [company])
    for flag in ("outbox.enabled", "dlq.replay.enabled"):
        db.execute("INSERT INTO feature_flags (key, company_id) VALUES (%s, %s)", [flag, company])
    before = digest(db, company)
    for flag in ("dlq.replay.enabled", "outbox.enabled"):
        for dry_run in (True, False):
            forget_limit(db, company)
            answer = post(http, {"company_id": company, "force": True, "dry_run": dry_run, "idempotency_key": "k"})
            assert (answer.status_code, answer.json()["code"]) == (403, "feature_disabled")
            assert answer.json()["flag"] == flag
        db.execute("DELETE FROM feature_flags WHERE key = %s AND company_id = %s", [flag, company])
    for dry_run in (True, False):
        assert refused(http, db, company, force=True, dry_run=dry_run) == (409, "agents_paused")
    db.execute("DELETE FROM agent_controls WHERE company_id = %s", [company])
    assert refused(http, db, company, idempotency_key="k") == (429, "budget_exhausted")
    assert digest(db, company) == before
    db.execute("DELETE FROM replay_budgets WHERE company_id = %s", [company])
    assert replay(http, db, company, idempotency_key="k")["target_count"] == 1
