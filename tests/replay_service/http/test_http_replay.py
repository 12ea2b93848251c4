"""The happy path of every endpoint."""

from __future__ import annotations

import httpx

from tests.replay_service.http.service_process import Db, add_items, audit, post, value


def test_replay_moves_the_oldest_items_in_one_transaction(http: httpx.Client, db: Db, company: str) -> None:
    """A replay moves the oldest eligible items, and run, outbox, budget and audit rows share its transaction."""
    ids = add_items(db, company, 5)
    answer = post(http, {"company_id": company, "max": 3, "idempotency_key": "k1"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["status"] == "started" and body["items"] == ids[:3] and body["target_count"] == 3
    txids = db.execute(
        "SELECT txid FROM replay_runs WHERE company_id = %(c)s UNION SELECT txid FROM event_outbox WHERE company_id = %(c)s"
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
