"""The effect of a replay: selection, budget, pause, flags, dry run."""

import uuid
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg

from tests.replay_service.http.service_process import Db, add_items, audit, forget_limit, post, token, value


def test_replay_moves_the_oldest_items_in_one_transaction(http: httpx.Client, db: Db, company: str) -> None:
    """A replay moves the oldest eligible items, and run, outbox, budget and audit rows share its transaction."""
    ids = add_items(db, company, 5)
    answer = post(http, {"company_id": company, "max": 3, "idempotency_key": "k1"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["status"], body["items"], body["target_count"]) == ("started", ids[:3], 3)
    txids = db.execute(
        "SELECT txid FROM replay_runs WHERE company_id = %(c)s"
        " UNION SELECT txid FROM event_outbox WHERE company_id = %(c)s"
        " UNION SELECT txid FROM audit_logs WHERE scope = %(c)s::text",
        {"c": company},
    ).fetchall()
    assert len(txids) == 1
    assert value(db, "SELECT daily_used FROM replay_budgets WHERE company_id = %s", company) == 3
    assert [row[0] for row in audit(db, company)] == ["dlq_replay_started"]
    assert audit(db, company)[0][4] == answer.headers["x-request-id"]
    again = post(http, {"company_id": company, "max": 3, "idempotency_key": "k1"})
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == body | {"duplicate": True}


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


def test_only_eligible_items_are_taken(http: httpx.Client, db: Db, company: str) -> None:
    """Settled, exhausted and waiting items stay; force ignores retry_after and nothing else."""
    later = datetime(2100, 1, 1, tzinfo=UTC)
    good = add_items(db, company, 1)
    waiting = add_items(db, company, 1, retry_after=later)
    add_items(db, company, 1, status="resolved")
    add_items(db, company, 1, status="discarded")
    add_items(db, company, 1, status="replaying")
    add_items(db, company, 1, retry_count=5, max_retries=5)
    assert replay(http, db, company)["items"] == good
    assert replay(http, db, company)["items"] == []
    assert replay(http, db, company, force=True)["items"] == waiting
    assert replay(http, db, company, force=True)["status"] == "completed"


def test_error_type_is_matched_exactly(http: httpx.Client, db: Db, company: str) -> None:
    """Pattern characters, quotes and case are data."""
    add_items(db, company, 1, error_type="timeout")
    odd = add_items(db, company, 1, error_type="time%_'\"$1\\")
    for wrong in ("%", "time%", "TIMEOUT", "timeout ", "' OR 1=1--"):
        assert replay(http, db, company, error_type=wrong, dry_run=True)["items"] == []
    assert replay(http, db, company, error_type="time%_'\"$1\\")["items"] == odd


def test_ids_are_a_set_and_foreign_ones_are_unknown(http: httpx.Client, db: Db, company: str) -> None:
    """Unknown and foreign ids are reported alike, ineligible ones apart; ids cut by max are in no list."""
    other = str(uuid.uuid4())
    foreign = add_items(db, other, 1)
    unknown = str(uuid.uuid4())
    mine = add_items(db, company, 3)
    settled = add_items(db, company, 1, status="resolved")
    other_type = add_items(db, company, 1, error_type="other")
    wanted = [mine[2], mine[0].upper(), mine[2], *foreign, unknown, *settled, *other_type]
    body = replay(http, db, company, dlq_ids=wanted, error_type="timeout")
    assert body["items"] == [mine[0], mine[2]]
    assert body["not_found"] == sorted([*foreign, unknown])
    assert body["ineligible"] == sorted([*settled, *other_type])
    assert value(db, "SELECT status FROM dead_letter_queue WHERE id = %s", foreign[0]) == "pending"
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


def test_an_item_keeps_its_event_id(http: httpx.Client, db: Db, company: str) -> None:
    """The outbox row carries the item's event, and an item without an id gets a stable one."""
    event = str(uuid.uuid4())
    payload = '{"n": 12345678901234567890.123456789, "s": "\u00e9"}'
    items = add_items(db, company, 1, event_id=event, payload=payload, aggregate_key="k", event_type="t")
    items += add_items(db, company, 1)
    run_id = replay(http, db, company)["replay_run_id"]
    rows = db.execute(
        "SELECT o.event_id::text, d.event_id::text, o.payload::text = d.payload::text, o.replay_run_id::text, d.status"
        " FROM event_outbox o JOIN dead_letter_queue d ON d.id = o.dlq_id WHERE o.company_id = %s ORDER BY o.id",
        [company],
    ).fetchall()
    assert rows[0] == (event, event, True, run_id, "replaying")
    assert rows[1][0] == rows[1][1]
    assert len(items) == len(rows)


def test_nothing_eligible_completes_at_once(http: httpx.Client, db: Db, company: str) -> None:
    """An empty run is completed with all its audit rows, in one transaction."""
    body = replay(http, db, company)
    assert (body["status"], body["target_count"]) == ("completed", 0)
    assert [row[0] for row in audit(db, company)] == ["dlq_replay_started", "dlq_replay_completed", "dlq_replay"]
    assert value(db, "SELECT completed_at IS NOT NULL FROM replay_runs WHERE id = %s", body["replay_run_id"])


def test_the_budget_cuts_and_then_refuses(http: httpx.Client, db: Db, company: str) -> None:
    """A batch is cut to what is left; with nothing left the request is refused, and force does not help."""
    ids = add_items(db, company, 5)
    db.execute("INSERT INTO replay_budgets (company_id, daily_limit) VALUES (%s, 3)", [company])
    assert replay(http, db, company, dry_run=True)["items"] == ids[:3]
    assert replay(http, db, company)["items"] == ids[:3]
    assert refused(http, db, company, force=True) == (429, "budget_exhausted")
    assert refused(http, db, company, dry_run=True) == (429, "budget_exhausted")
    assert value(db, "SELECT daily_used FROM replay_budgets WHERE company_id = %s", company) == 3
    db.execute("UPDATE replay_budgets SET daily_limit = 1 WHERE company_id = %s", [company])
    assert refused(http, db, company) == (429, "budget_exhausted")
    db.execute("UPDATE replay_budgets SET daily_limit = 100, monthly_limit = 4 WHERE company_id = %s", [company])
    assert replay(http, db, company)["items"] == ids[3:4]
    assert refused(http, db, company) == (429, "budget_exhausted")


def test_budgets_of_past_periods_count_as_unused(http: httpx.Client, db: Db, company: str) -> None:
    """The first charge of a UTC day and month starts from nothing."""
    add_items(db, company, 2)
    db.execute(
        "INSERT INTO replay_budgets (company_id, daily_used, monthly_used, day, month)"
        " VALUES (%s, 500, 10000, '2020-01-31', '2020-01-01')",
        [company],
    )
    replay(http, db, company)
    row = db.execute(
        "SELECT daily_used, monthly_used, day = (now() AT TIME ZONE 'UTC')::date,"
        " month = date_trunc('month', now() AT TIME ZONE 'UTC')::date FROM replay_budgets WHERE company_id = %s",
        [company],
    ).fetchone()
    assert row == (2, 2, True, True)


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


def test_a_dry_run_writes_one_audit_row(http: httpx.Client, db: Db, company: str) -> None:
    """A dry run shows the very items that the real run takes, and leaves every row as it was."""
    add_items(db, company, 4)
    before = digest(db, company)
    shown = replay(http, db, company, max=3, dry_run=True, idempotency_key="k")
    assert (shown["status"], shown["replay_run_id"], shown["target_count"]) == ("dry_run", None, 3)
    assert digest(db, company) == before
    assert [(row[0], row[3]) for row in audit(db, company)] == [("dlq_replay_dry_run", 3)]
    done = replay(http, db, company, max=3, idempotency_key="k")
    assert done["items"] == shown["items"]
    assert done["duplicate"] is False


def test_strangers_and_unknown_companies_are_refused_alike(http: httpx.Client, db: Db, company: str) -> None:
    """An unknown company gets the answer of a foreign one, and neither counts against a rate limit."""
    own = token("company_admin", company_id=str(uuid.uuid4()))
    answers = [
        post(http, {"company_id": asked}, authorization=f"Bearer {own}", x_transbot_signature="")
        for asked in (company, str(uuid.uuid4()))
    ]
    answers.append(post(http, {"company_id": str(uuid.uuid4())}))
    assert {(a.status_code, a.content) for a in answers} == {(403, answers[0].content)}
    assert answers[0].json()["code"] == "forbidden"
    assert value(db, "SELECT count(*) FROM edge_rate_limits WHERE key LIKE %s", f"replay:{company}:%") == 0
    assert audit(db, company) == []


def test_a_run_commits_as_a_whole(http: httpx.Client, db: Db, company: str) -> None:
    """Where the outbox, the budget, the run or the audit cannot be written, nothing is, and the key stays free."""
    ids = add_items(db, company, 2)
    db.execute("INSERT INTO replay_budgets (company_id) VALUES (%s)", [company])
    before = digest(db, company)
    for right in (
        "INSERT ON event_outbox",
        "UPDATE ON replay_budgets",
        "UPDATE ON replay_runs",
        "INSERT ON audit_logs",
    ):
        db.execute(f"REVOKE {right} FROM replay_service".encode())
        try:
            assert refused(http, db, company, idempotency_key="k") == (503, "unavailable"), right
        finally:
            db.execute(f"GRANT {right} TO replay_service".encode())
        assert digest(db, company) == before, right
    body = replay(http, db, company, idempotency_key="k")
    assert (body["items"], body["duplicate"]) == (ids, False)
