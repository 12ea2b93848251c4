"""Events, reads, and the endpoints that need no credentials."""

import uuid
from typing import Any

import httpx

from tests.replay_service.http.service_process import Db, Service, post, sign, token, value
from tests.waiting import until


def emit(http: httpx.Client, company: str, **fields: Any) -> httpx.Response:
    return post(http, {"company_id": company, "event_type": "order.paid", "payload": {"n": 1}, **fields}, "/events")


def test_an_event_id_is_of_one_event(http: httpx.Client, company: str) -> None:
    """Another event with an id that was used is refused."""
    event_id = str(uuid.uuid4())
    emit(http, company, event_id=event_id)
    for change in ({"payload": {"n": 2}}, {"event_type": "x"}, {"aggregate_key": "k"}):
        answer = emit(http, company, event_id=event_id, **change)
        assert (answer.status_code, answer.json()["code"]) == (409, "event_id_reused")


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
