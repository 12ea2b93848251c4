"""Events, reads, and the endpoints that need no credentials."""

import uuid
from typing import Any

import httpx

from tests.replay_service.http.service_process import (
    BASE_PATH,
    Db,
    Service,
    add_items,
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


def test_a_connection_carries_many_requests(service: Service, company: str) -> None:
    """After refusals that did not read everything the next request on the connection is answered as its own."""
    with httpx.Client(base_url=service.url) as client:
        for _ in range(3):
            assert client.post("/nothing", content=b"x" * 50000).status_code == 404
            assert client.put("/dlq-replay", content=b"x" * 50000).status_code == 405
            assert client.get("/healthz").status_code == 200
