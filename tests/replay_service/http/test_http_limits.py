"""Rate limit, and how refusals are audited, where no drill shows it."""

import uuid

import httpx

from tests.replay_service.http.service_process import Db, add_items, audit, post, token, value
from tests.waiting import until


def counted(db: Db, company: str, code: str) -> int:
    """Refusals of a code that are written or waiting to be."""
    written = value(
        db,
        "SELECT coalesce(sum((metadata->>'count')::int), 0) FROM audit_logs"
        " WHERE scope = %s AND metadata->>'code' = %s",
        company,
        code,
    )
    waiting = value(db, "SELECT pending FROM refusal_counts WHERE scope = %s AND code = %s", company, code)
    return int(written) + int(waiting or 0)


def test_every_admitted_request_counts(http: httpx.Client, db: Db, company: str) -> None:
    """Dry runs, duplicates and requests refused later count; the spelling of the company opens no second window."""
    post(http, {"company_id": company, "idempotency_key": "k"})
    post(http, {"company_id": company.upper(), "idempotency_key": "k"})
    assert post(http, {"company_id": company, "idempotency_key": "k", "max": 7}).status_code == 422
    for forged in ("1.2.3.4", "1.2.3.4, 127.0.0.1"):
        headers = {"x_forwarded_for": forged, "x_real_ip": forged, "forwarded": f"for={forged}"}
        assert post(http, {"company_id": company, "dry_run": True}, **headers).status_code == 429
    assert value(db, "SELECT count FROM edge_rate_limits WHERE key LIKE %s", f"replay:{company}:%") == 3


def test_an_unreadable_limit_refuses(http: httpx.Client, db: Db, company: str) -> None:
    """Without the store of the rate limit nothing is replayed: 503, and the next request is fine again."""
    add_items(db, company, 1)
    db.execute("REVOKE INSERT ON edge_rate_limits FROM replay_service")
    try:
        answer = post(http, {"company_id": company})
    finally:
        db.execute("GRANT INSERT ON edge_rate_limits TO replay_service")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert value(db, "SELECT status FROM dead_letter_queue WHERE company_id = %s", company) == "pending"
    assert post(http, {"company_id": company}).json()["target_count"] == 1


def test_counted_refusals_have_one_row_a_minute(http: httpx.Client, db: Db, company: str) -> None:
    """rate_limited is written once a minute; what came after is written with its count when the minute is over."""
    db.execute(
        "INSERT INTO edge_rate_limits (key, hits) VALUES (%s, array_fill(now(), ARRAY[3]))",
        [f"replay:{company}:127.0.0.1"],
    )
    for _ in range(6):
        assert post(http, {"company_id": company}).status_code == 429
    until(lambda: counted(db, company, "rate_limited") == 6, 5)
    rows = audit(db, company)
    assert len(rows) <= 2  # 2 where a minute ended between
    db.execute("UPDATE refusal_counts SET last_row_at = last_row_at - interval '1 minute' WHERE scope = %s", [company])
    until(lambda: value(db, "SELECT pending FROM refusal_counts WHERE scope = %s", company) == 0, 5)
    assert sum(int(row[2]) for row in audit(db, company)) == 6


def test_forbidden_is_audited_under_the_callers_company(http: httpx.Client, db: Db, company: str) -> None:
    """A stranger's refusal lands in its own chain; a signed request for an unknown company in `all`."""
    mine = str(uuid.uuid4())
    post(
        http,
        {"company_id": company},
        authorization=f"Bearer {token('company_admin', company_id=mine)}",
        x_transbot_signature="",
    )
    assert [row[:3] for row in audit(db, mine)] == [("dlq_replay_refused", "forbidden", "1")]
    before = counted(db, "all", "forbidden")
    post(http, {"company_id": str(uuid.uuid4())})
    until(lambda: counted(db, "all", "forbidden") == before + 1, 5)
    assert audit(db, company) == []
