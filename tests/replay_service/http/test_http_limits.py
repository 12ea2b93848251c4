"""Rate limit and idempotency, also under concurrency, and how refusals are audited."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg

from tests.replay_service.http.service_process import (
    Db,
    Service,
    add_items,
    audit,
    encode,
    forget_limit,
    post,
    sign,
    token,
    value,
)
from tests.waiting import until


def at_once(service: Service, bodies: list[bytes], addresses: int = 1) -> list[httpx.Response]:
    """Send all bodies at the same moment, from that many loopback addresses."""
    barrier = threading.Barrier(len(bodies))

    def send(number: int) -> httpx.Response:
        transport = httpx.HTTPTransport(local_address=f"127.0.0.{2 + number % addresses}")
        with httpx.Client(base_url=service.url, transport=transport, timeout=20) as client:
            client.get("/healthz")
            barrier.wait(10)
            return post(client, bodies[number])

    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(send, range(len(bodies))))


def test_thirty_calls_at_once_pass_three(service: Service, db: Db, company: str) -> None:
    """Of 30 concurrent calls of one tenant and address exactly 3 pass, and 27 are counted in the audit."""
    body = encode({"company_id": company, "dry_run": True})
    answers = at_once(service, [body] * 30)
    assert sorted(a.status_code for a in answers) == [200] * 3 + [429] * 27
    assert {a.json()["code"] for a in answers if a.status_code == 429} == {"rate_limited"}
    assert all(295 <= int(a.headers["retry-after"]) <= 300 for a in answers if a.status_code == 429)
    row = db.execute(
        "SELECT count, hits, window_start FROM edge_rate_limits WHERE key = %s", [f"replay:{company}:127.0.0.2"]
    )
    count, hits, start = row.fetchone() or (0, [], None)
    assert (count, hits[0]) == (3, start)
    assert hits == sorted(hits)
    until(lambda: counted(db, company, "rate_limited") == 27, 5)


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


def test_fifty_one_calls_with_one_key_have_one_effect(service: Service, db: Db, company: str) -> None:
    """51 requests with one key from 17 addresses: one effect; the others see its answer or 409, never 5xx."""
    ids = add_items(db, company, 60)
    body = encode({"company_id": company, "max": 5, "idempotency_key": "one"})
    answers = at_once(service, [body] * 51, addresses=17)
    assert {a.status_code for a in answers} <= {200, 409}
    firsts = [a for a in answers if a.status_code == 200 and not a.json()["duplicate"]]
    assert len(firsts) == 1
    assert {a.json()["replay_run_id"] for a in answers if a.status_code == 200} == {firsts[0].json()["replay_run_id"]}
    assert {a.json()["code"] for a in answers if a.status_code == 409} <= {"in_progress"}
    assert value(db, "SELECT count(*) FROM event_outbox WHERE company_id = %s", company) == 5
    assert value(db, "SELECT count(*) FROM replay_runs WHERE company_id = %s", company) == 1
    assert firsts[0].json()["items"] == ids[:5]


def test_one_key_with_two_payloads_has_one_effect(service: Service, db: Db, company: str) -> None:
    """Concurrent requests with one key and different payloads: one commits, the other is 409 or 422."""
    add_items(db, company, 20)
    bodies = [encode({"company_id": company, "max": n, "idempotency_key": "two"}) for n in (3, 4)]
    answers = at_once(service, bodies, addresses=2)
    winner = [a for a in answers if a.status_code == 200]
    assert len(winner) == 1
    assert [a.json()["code"] in {"in_progress", "idempotency_key_reused"} for a in answers if a.status_code != 200] == [
        True
    ]
    taken = winner[0].json()["target_count"]
    assert value(db, "SELECT count(*) FROM event_outbox WHERE company_id = %s", company) == taken


def test_parallel_runs_never_overspend_or_share_items(service: Service, db: Db, company: str) -> None:
    """12 runs from 4 addresses against a budget of 10 move 10 distinct items."""
    add_items(db, company, 40)
    db.execute("INSERT INTO replay_budgets (company_id, daily_limit) VALUES (%s, 10)", [company])
    answers = at_once(service, [encode({"company_id": company, "max": 3})] * 12, addresses=4)
    moved = [i for a in answers if a.status_code == 200 for i in a.json()["items"]]
    assert len(moved) == len(set(moved)) == 10
    assert value(db, "SELECT daily_used FROM replay_budgets WHERE company_id = %s", company) == 10


def test_the_window_rolls(http: httpx.Client, db: Db, company: str) -> None:
    """A hit is forgotten after 300 s and not before; the refusal says how long that takes and changes nothing."""
    key = f"replay:{company}:127.0.0.1"
    db.execute(
        "INSERT INTO edge_rate_limits (key, hits) VALUES (%s, ARRAY[now() - interval '299 seconds', now(), now()])",
        [key],
    )
    before = value(db, "SELECT to_jsonb(r)::text || xmin::text FROM edge_rate_limits r WHERE key = %s", key)
    answer = post(http, {"company_id": company, "dry_run": True})
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert answer.headers["retry-after"] == "1"
    assert value(db, "SELECT to_jsonb(r)::text || xmin::text FROM edge_rate_limits r WHERE key = %s", key) == before
    db.execute("UPDATE edge_rate_limits SET hits[1] = now() - interval '300.1 seconds' WHERE key = %s", [key])
    assert post(http, {"company_id": company, "dry_run": True}).status_code == 200
    assert value(db, "SELECT count FROM edge_rate_limits WHERE key = %s", key) == 3
    assert post(http, {"company_id": company, "dry_run": True}).status_code == 429


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


def test_same_key_other_payload_is_refused(http: httpx.Client, db: Db, company: str) -> None:
    """Defaults and spellings make no other payload; a real difference does, and leaves the first result alone."""
    ids = add_items(db, company, 3)
    first = post(http, {"company_id": company, "idempotency_key": "k", "dlq_ids": ids})
    for same in (
        {"max": 3, "dlq_ids": ids[::-1]},
        {"force": False, "dry_run": False, "dlq_ids": [i.upper() for i in ids]},
    ):
        forget_limit(db, company)
        again = post(http, {"idempotency_key": "k", "company_id": company.upper(), **same})
        assert again.json() == first.json() | {"duplicate": True}
    before = len(audit(db, company))
    for other in ({}, {"max": 2, "dlq_ids": ids}, {"force": True, "dlq_ids": ids}, {"error_type": "x", "dlq_ids": ids}):
        forget_limit(db, company)
        answer = post(http, {"company_id": company, "idempotency_key": "k", **other})
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert [row[:2] for row in audit(db, company)[before:]] == [("dlq_replay_refused", "idempotency_key_reused")] * 4


def test_keys_are_of_a_company(http: httpx.Client, db: Db, company: str) -> None:
    """Another company's key is another key and shows nothing."""
    other = str(uuid.uuid4())
    db.execute("INSERT INTO companies (id, name) VALUES (%s, 'drill-other')", [other])
    first = post(http, {"company_id": company, "idempotency_key": "k"}).json()
    second = post(http, {"company_id": other, "idempotency_key": "k", "max": 9}).json()
    assert second["duplicate"] is False
    assert second["replay_run_id"] != first["replay_run_id"]


def test_a_run_elsewhere_is_in_progress_at_once(service: Service, http: httpx.Client, db: Db, company: str) -> None:
    """A key that another open transaction has taken is 409 within a second, and free after its rollback."""
    with psycopg.connect(service.database_url) as other:
        other.execute("INSERT INTO replay_runs (idempotency_key, company_id) VALUES ('k', %s)", [company])
        answer = post(http, {"company_id": company, "idempotency_key": "k"})
        assert (answer.status_code, answer.json()["code"]) == (409, "in_progress")
        assert answer.elapsed.total_seconds() < 1
        other.rollback()
    assert post(http, {"company_id": company, "idempotency_key": "k"}).json()["duplicate"] is False


def test_refusals_wait_for_no_running_replay(service: Service, http: httpx.Client, db: Db, company: str) -> None:
    """While a replay waits for its budget row, a refusal of the same tenant answers and is audited."""
    add_items(db, company, 1)
    db.execute("INSERT INTO replay_budgets (company_id) VALUES (%s)", [company])
    with psycopg.connect(service.database_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("SELECT 1 FROM replay_budgets WHERE company_id = %s FOR UPDATE", [company])
        running = pool.submit(
            lambda: httpx.post(
                f"{service.url}/dlq-replay",
                content=encode({"company_id": company, "idempotency_key": "k"}),
                headers={
                    "content-type": "application/json",
                    "x-transbot-signature": sign(encode({"company_id": company, "idempotency_key": "k"})),
                },
                timeout=10,
            )
        )
        until(lambda: value(db, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid'") > 0, 5)
        answer = post(http, {"company_id": company, "idempotency_key": "k"})
        assert (answer.status_code, answer.json()["code"]) == (409, "in_progress")
        assert answer.elapsed.total_seconds() < 1
        assert [(r[1], r[4]) for r in audit(db, company)] == [("in_progress", answer.headers["x-request-id"])]
        other.rollback()
        assert running.result().status_code == 200


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
