"""Events, reads, and the endpoints that need no credentials."""

import time
import uuid
from typing import Any

import httpx
import psycopg
import pytest

from tests.replay_service.http.service_process import (
    BASE_PATH,
    Db,
    Service,
    add_items,
    encode,
    post,
    sign,
    sign_v2,
    token,
    value,
)
from tests.waiting import until


def emit(http: httpx.Client, company: str, **fields: Any) -> httpx.Response:
    return post(http, {"company_id": company, "event_type": "order.paid", "payload": {"n": 1}, **fields}, "/events")


def state(http: httpx.Client, path: str, **headers: str) -> httpx.Response:
    sent = headers or {"x-transbot-signature": sign_v2(path.encode())}
    return http.get(path, headers=sent)


def test_an_event_and_its_outbox_row_share_a_transaction(http: httpx.Client, db: Db, company: str) -> None:
    """With the outbox on, the business row and the outbox row have one txid and the exact payload."""
    raw = (
        b'{"company_id":"%s","event_type":"t","aggregate_key":"k","payload":{"n":0.10000000000000000555,"e":"\\u00e9"}}'
    )
    answer = post(http, raw % company.encode(), "/events")
    assert answer.status_code == 202
    body = answer.json()
    assert (body["path"], body["duplicate"]) == ("outbox", False)
    row = db.execute(
        "SELECT e.txid = o.txid, e.payload::text, o.payload::text, o.aggregate_key, e.path"
        " FROM events e JOIN event_outbox o ON o.event_id = e.id WHERE e.id = %s",
        [body["event_id"]],
    ).fetchone()
    stored = '{"e": "é", "n": 0.10000000000000000555}'
    assert row == (True, stored, stored, "k", "outbox")
    seen = state(http, f"/events/{body['event_id']}").json()
    assert (seen["status"], seen["effect_at"]) == ("pending", None)


def test_with_the_outbox_off_the_effect_is_direct(http: httpx.Client, db: Db, company: str) -> None:
    """Off: effect and event in one transaction, no outbox row. Paused: the outbox, also when off."""
    db.execute("INSERT INTO feature_flags (key, company_id) VALUES ('outbox.enabled', %s)", [company])
    body = emit(http, company).json()
    assert body["path"] == "direct"
    row = db.execute(
        "SELECT e.txid = t.xmin::text::xid8, t.status, (SELECT count(*) FROM event_outbox WHERE event_id = e.id)"
        " FROM events e JOIN agent_tasks t ON t.event_id = e.id WHERE e.id = %s",
        [body["event_id"]],
    ).fetchone()
    assert row == (True, "completed", 0)
    seen = state(http, f"/events/{body['event_id']}").json()
    assert seen["status"] == "processed"
    assert seen["effect_at"] is not None
    db.execute("INSERT INTO agent_controls (company_id, agents_paused) VALUES (%s, true)", [company])
    assert emit(http, company).json()["path"] == "outbox"


def test_the_drill_agent_fails_the_direct_path(http: httpx.Client, db: Db, company: str) -> None:
    """An event whose agent fails leaves nothing behind; of an ordinary type it is ordinary."""
    db.execute("INSERT INTO feature_flags (key, company_id) VALUES ('outbox.enabled', %s)", [company])
    drill = {"drill": {"fail_times": -1}}
    assert emit(http, company, event_type="drill.x", payload=drill).status_code == 503
    assert value(db, "SELECT count(*) FROM events WHERE company_id = %s", company) == 0
    assert emit(http, company, event_type="ordinary", payload=drill).status_code == 202
    started = time.monotonic()
    assert emit(http, company, event_type="drill.x", payload={"drill": {"delay_ms": 100}}).status_code == 202
    assert time.monotonic() - started >= 0.1


def test_an_event_id_makes_it_idempotent(http: httpx.Client, db: Db, company: str) -> None:
    """The same event again is a duplicate without effect; another event with that id is refused."""
    event_id = str(uuid.uuid4())
    assert emit(http, company, event_id=event_id).json() == {"event_id": event_id, "path": "outbox", "duplicate": False}
    again = emit(http, company, event_id=event_id.upper())
    assert (again.status_code, again.json()["duplicate"]) == (202, True)
    for change in ({"payload": {"n": 2}}, {"event_type": "x"}, {"aggregate_key": "k"}):
        answer = emit(http, company, event_id=event_id, **change)
        assert (answer.status_code, answer.json()["code"]) == (409, "event_id_reused")
    assert value(db, "SELECT count(*) FROM event_outbox WHERE event_id = %s", event_id) == 1


def test_events_need_rights_and_are_not_limited(http: httpx.Client, db: Db, company: str) -> None:
    """Foreign and unknown companies are 403; ten events in a row are fine and leave no hit."""
    own = token("company_admin", company_id=str(uuid.uuid4()))
    body = {"company_id": company, "event_type": "t", "payload": {}}
    assert post(http, body, "/events", authorization=f"Bearer {own}", x_transbot_signature="").status_code == 403
    assert emit(http, str(uuid.uuid4())).status_code == 403
    assert post(http, body, "/events", x_transbot_signature="0" * 64).status_code == 401
    assert [emit(http, company).status_code for _ in range(10)] == [202] * 10
    assert value(db, "SELECT count(*) FROM edge_rate_limits WHERE key LIKE %s", f"replay:{company}:%") == 0


def test_an_event_fails_as_a_whole(http: httpx.Client, db: Db, company: str) -> None:
    """Where the outbox row cannot be written, there is no business row either."""
    db.execute("REVOKE INSERT ON event_outbox FROM replay_service")
    try:
        assert emit(http, company).status_code == 503
    finally:
        db.execute("GRANT INSERT ON event_outbox TO replay_service")
    assert value(db, "SELECT count(*) FROM events WHERE company_id = %s", company) == 0


def test_reads_show_only_ones_own(http: httpx.Client, db: Db, company: str) -> None:
    """Own tokens and v2 signatures read; a foreign thing is the same 404 as a random id; reads are not limited."""
    add_items(db, company, 2)
    run = post(http, {"company_id": company, "idempotency_key": "k"}).json()["replay_run_id"]
    event = emit(http, company).json()["event_id"]
    own = {"authorization": f"Bearer {token('company_admin', company_id=company)}"}
    stranger = {"authorization": f"Bearer {token('company_admin', company_id=str(uuid.uuid4()))}"}
    for path, kind in ((f"/dlq-replay/{run}", "/dlq-replay/"), (f"/events/{event}", "/events/")):
        assert state(http, path).status_code == 200
        assert [state(http, path, **own).status_code for _ in range(6)] == [200] * 6
        foreign = state(http, path, **stranger)
        random = state(http, kind + str(uuid.uuid4()), **stranger)
        assert foreign.status_code == random.status_code == 404
        assert foreign.content == random.content == state(http, kind + "x", **stranger).content
        assert state(http, path, authorization=f"Bearer {token('viewer')}").status_code == 403
        for bad in (sign(path.encode()), sign_v2(b""), sign_v2((BASE_PATH + path).encode()), sign_v2(kind.encode())):
            assert state(http, path, **{"x-transbot-signature": bad}).status_code == 401
        assert http.get(path).status_code == 401
    seen = state(http, f"/dlq-replay/{run}").json()
    assert (seen["status"], seen["target_count"], seen["success_count"], seen["completed_at"]) == (
        "started",
        2,
        0,
        None,
    )


def test_every_answer_has_a_request_id(http: httpx.Client, company: str) -> None:
    """Success, refusal, unknown path and wrong method carry an id of their own, no server banner, and stay out
    of caches.
    """
    answers = [
        http.get("/healthz"),
        http.get("/nothing"),
        http.get("/dlq-replay"),
        http.get("/openapi.json"),
        http.post("/dlq-replay", content=b"x" * 70000, headers={"content-type": "application/json"}),
        post(http, {"company_id": company, "max": 0}),
    ]
    ids = [a.headers["x-request-id"] for a in answers]
    assert len(set(ids)) == len(ids)
    assert not any("server" in a.headers for a in answers)
    assert all(a.headers["cache-control"] == "no-store" for a in answers)


@pytest.mark.parametrize(
    "path",
    ["//dlq-replay", "/dlq-replay/", "/./dlq-replay", "/dlq%2Dreplay", "/DLQ-REPLAY", "/dlq-replay;x", "/dlq-replay//"],
)
def test_path_variants_open_nothing(service: Service, company: str, path: str) -> None:
    """Another spelling of the path needs the same credentials or does not exist."""
    with httpx.Client() as client:
        url = httpx.URL(service.url).copy_with(raw_path=(BASE_PATH + path).encode())
        answer = client.post(url, content=encode({"company_id": company}), headers={"content-type": "application/json"})
    assert answer.status_code in {401, 404, 405}
    assert answer.headers["content-type"] == "application/problem+json"


def test_condition_endpoints(http: httpx.Client, db: Db, service: Service) -> None:
    """Liveness, readiness with a worker's heartbeat, and version tell the truth."""
    assert http.get("/healthz").json() == {"status": "alive"}
    assert http.head("/healthz").status_code == 200
    db.execute("UPDATE worker_heartbeats SET beat_at = now()")
    assert http.get("/readyz").json()["checks"] == {"database": True, "migrations": True, "worker": True}
    db.execute("UPDATE worker_heartbeats SET beat_at = now() - interval '1 hour'")
    answer = http.get("/readyz")
    assert (answer.status_code, answer.json()["checks"]["worker"]) == (503, False)
    db.execute("UPDATE worker_heartbeats SET beat_at = now()")
    found = http.get("/version").json()
    assert (found["release"], found["commit"], found["drill_agent"]) == ("test-release", "abc123", True)
    assert found["schema_version"] == value(db, "SELECT max(version) FROM schema_migrations")


def metric(http: httpx.Client, name: str) -> float:
    lines = http.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_metrics_count_exactly(http: httpx.Client, company: str) -> None:
    """K requests move their counters by k; histograms are monotone; no series names a tenant."""
    before = metric(http, 'replay_requests_total{outcome="dry_run"}')
    errors = metric(http, 'http_errors_total{code="rate_limited"}')
    for _ in range(4):
        post(http, {"company_id": company, "dry_run": True})
    assert metric(http, 'replay_requests_total{outcome="dry_run"}') == before + 3
    assert metric(http, 'http_errors_total{code="rate_limited"}') == errors + 1
    text = http.get("/metrics").text
    assert company not in text
    for name in ("outbox_lag_seconds", "outbox_pending", "dlq_items", "agent_tasks_total", "replay_database_up"):
        assert f"\n{name}" in text, name
    buckets = [
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith('http_request_duration_seconds_bucket{route="/dlq-replay",')
    ]
    assert buckets == sorted(buckets)
    assert len(buckets) > 5


def test_logs_hold_no_secret(service: Service, http: httpx.Client, company: str) -> None:
    """Neither credentials nor bodies reach the log, which is JSON lines with the request id."""
    bearer = token(sub="log-canary")
    answer = post(http, {"company_id": company, "error_type": "body-canary"}, authorization=f"Bearer {bearer}")
    wanted = answer.headers["x-request-id"]
    until(lambda: wanted in service.log.read_text(), 5, "the line of the answer, written after it is sent")
    text = service.log.read_text()
    assert not any(
        secret in text for secret in (bearer, "log-canary", "body-canary", sign(b""), "jwt-secret", "hmac-secret")
    )


def test_a_lost_database_is_503_and_comes_back(http: httpx.Client, db: Db, service: Service, company: str) -> None:
    """When every connection is cut, the next requests are served by new ones; nothing answers 500."""
    for _ in range(3):
        db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'replay-service'"
            " AND datname = current_database()"
        )
        assert emit(http, company).status_code in {202, 503}
    until(lambda: emit(http, company).status_code == 202, 5, every_s=0.05)


def test_a_connection_carries_many_requests(service: Service, company: str) -> None:
    """After refusals that did not read everything the next request on the connection is answered as its own."""
    with httpx.Client(base_url=service.url) as client:
        for _ in range(3):
            assert client.post("/nothing", content=b"x" * 50000).status_code == 404
            assert client.put("/dlq-replay", content=b"x" * 50000).status_code == 405
            assert client.get("/healthz").status_code == 200


def test_a_killed_request_leaves_no_key(service: Service, http: httpx.Client, db: Db, company: str) -> None:
    """A replay whose connection dies in the middle leaves no key: the same request then runs for the first time."""
    add_items(db, company, 2)
    db.execute("INSERT INTO replay_budgets (company_id) VALUES (%s)", [company])
    body = encode({"company_id": company, "idempotency_key": "k"})
    headers = {"content-type": "application/json", "x-transbot-signature": sign(body)}
    with psycopg.connect(service.database_url) as other, httpx.Client(base_url=service.url) as client:
        other.execute("SELECT 1 FROM replay_budgets WHERE company_id = %s FOR UPDATE", [company])
        with pytest.raises(httpx.ReadTimeout):
            client.post("/dlq-replay", content=body, headers=headers, timeout=0.3)
        db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()"
        )
    deadline = time.monotonic() + 5
    while (answer := post(http, body)).status_code in {409, 503}:
        db.execute("DELETE FROM edge_rate_limits WHERE key LIKE %s", [f"replay:{company}:%"])
        assert time.monotonic() < deadline
    assert (answer.json()["duplicate"], answer.json()["target_count"]) == (False, 2)
