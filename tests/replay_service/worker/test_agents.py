"""Agents: the http agent against a real listener, the drill script, and the worker's settings."""

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from gates.proof.workbench.servers import Asked, Reply, serve
from replay_service.settings import ConfigurationError
from replay_service.worker.agents import Event, read_script, write_body
from replay_service.worker.settings import TUNABLES, WorkerSettings, read_worker_settings
from tests.replay_service.worker.harness import Bench, Workers
from tests.waiting import until

SECRET = "agent-secret-of-the-tests"


@dataclass
class Listener:
    """An agent that keeps what it is sent; `answers` per event id, 200 where none is left."""

    url: str = ""
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: dict[str, list[int]] = field(default_factory=dict)

    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, body in self.requests]


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A real HTTP server on an ephemeral port."""
    kept = Listener()

    def answer(asked: Asked) -> Reply:
        kept.requests.append(({k.lower(): v for k, v in asked.headers}, asked.body))
        left = kept.answers.get(json.loads(asked.body)["event_id"], [])
        return Reply(left.pop(0) if left else 200)

    with serve(answer) as url:
        kept.url = f"{url}/agent"
        yield kept


def environment(listener: Listener) -> dict[str, str]:
    return {"AGENT": "http", "AGENT_URL": listener.url, "AGENT_SECRET": SECRET, "WORKER_BACKOFF_BASE_S": "0.05"}


def test_the_http_agent_gets_each_event_signed(bench: Bench, workers: Workers, listener: Listener) -> None:
    """Signed over the very bytes, with the stable id as the idempotency key; keys keep their order."""
    company = bench.company()
    events = [bench.emit(company, key="k") for _ in range(5)]
    bench.conn.execute("UPDATE event_outbox SET payload = '{\"n\": 1.10}'")
    workers.start(**environment(listener))
    until(bench.settled)
    assert [b["event_id"] for b in listener.bodies()] == events
    for headers, body in listener.requests:
        stamp, mac = (part.partition("=")[2] for part in headers["x-transbot-signature"].split(","))
        assert mac == hmac.new(SECRET.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        assert headers["idempotency-key"] == json.loads(body)["event_id"]
        assert b'"payload": {"n": 1.10}' in body
    assert bench.all("SELECT DISTINCT agent_name, status FROM agent_tasks") == [("http", "completed")]


def test_a_failing_http_agent_is_asked_again(bench: Bench, workers: Workers, listener: Listener) -> None:
    """An error answer is a failed attempt with the same event id the next time; 5 of them make a dead letter."""
    company = bench.company()
    flaky, broken, fine = (bench.emit(company) for _ in range(3))
    listener.answers = {flaky: [500, 429], broken: [503] * 5}
    workers.start(**environment(listener))
    until(bench.settled)
    assert Counter(b["event_id"] for b in listener.bodies()) == {flaky: 3, broken: 5, fine: 1}
    letters = bench.all("SELECT event_id::text, error_type FROM dead_letter_queue")
    assert letters == [(broken, "agent_http_503")]
    done = "SELECT event_id::text FROM agent_tasks WHERE status = 'completed' ORDER BY 1"
    assert bench.all(done) == sorted([flaky, fine])


def test_an_agent_that_is_not_there_fails_the_attempt(bench: Bench, workers: Workers, listener: Listener) -> None:
    """A refused connection ends as a dead letter, and the message quotes no secret."""
    bench.emit(bench.company())
    gone = environment(listener) | {"AGENT_URL": "http://127.0.0.1:9/agent", "WORKER_MAX_ATTEMPTS": "2"}
    workers.start(**gone)
    until(bench.settled)
    kind, message = bench.one("SELECT error_type, error_message FROM dead_letter_queue")
    assert kind == "agent_unreachable"
    assert SECRET not in message + workers.log.read_text()


def test_a_replay_through_the_http_agent_settles(bench: Bench, workers: Workers, listener: Listener) -> None:
    """Items of a run go the same way, and the run ends."""
    run = bench.start_run(bench.company("drill-http"), [{"fail_times": 0}] * 12 + [{"fail_times": -1}])
    workers.start(**environment(listener))
    until(lambda: bench.run_status(run) == ("completed", 12, 1))
    assert len(listener.requests) == 12


@pytest.mark.parametrize(
    ("payload", "script"),
    [
        ({"drill": {"fail_times": 3, "delay_ms": 20}}, (3, 20)),
        ({"drill": {"fail_times": -1}}, (-1, 0)),
        ({"drill": {"delay_ms": 99999}}, (0, 5000)),
        ({"drill": {"delay_ms": -5, "fail_times": -7}}, (0, 0)),
        ({"drill": {"fail_times": True, "delay_ms": "20"}}, (0, 0)),
        ({"drill": "always"}, (0, 0)),
        ([1], (0, 0)),
    ],
)
def test_a_malformed_script_is_no_script(payload: object, script: tuple[int, int]) -> None:
    """What is missing or malformed counts as 0."""
    assert read_script(payload) == script


def test_a_body_is_json_with_the_payload_s_own_text() -> None:
    """The payload's text is not read and written again."""
    event = Event(1, "e", "c", 't"', None, '{"big": 12345678901234567890.10}', is_scripted=False, failures=2)
    assert b"12345678901234567890.10" in write_body(event)
    assert json.loads(write_body(event))["attempt"] == 3


BASE = {"DATABASE_URL": "postgresql://x"}


def test_settings_have_defaults_and_ranges() -> None:
    """Nothing but the database is required; each tunable is read, and refused outside of its range."""
    assert read_worker_settings(BASE) == WorkerSettings("postgresql://x")
    for variable, (name, smallest, largest) in TUNABLES.items():
        value = f"{max(smallest, min(largest, 11)):g}"
        assert getattr(read_worker_settings({**BASE, variable: value}), name) == float(value)
        for bad in (f"{largest * 10:g}", "-1", "", "x"):
            with pytest.raises(ConfigurationError, match=variable):
                read_worker_settings({**BASE, variable: bad})


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "DATABASE_URL"),
        ({**BASE, "AGENT": "http"}, "AGENT_URL"),
        ({**BASE, "AGENT": "http", "AGENT_URL": "ftp://x"}, "AGENT_URL"),
        ({**BASE, "AGENT": "http", "AGENT_URL": "http://x", "AGENT_SECRET": "short"}, "AGENT_SECRET"),
        (
            {**BASE, "AGENT": "http", "AGENT_URL": "http://x", "AGENT_SECRET": SECRET, "WORKER_HTTP_TIMEOUT_S": "15"},
            "WORKER_LEASE_S",
        ),
    ],
)
def test_a_wrong_environment_is_named_and_quotes_no_secret(given: dict[str, str], named: str) -> None:
    """The message names the variable, never its secret."""
    with pytest.raises(ConfigurationError, match=named) as refused:
        read_worker_settings(given)
    assert SECRET not in str(refused.value)
    assert "short" not in str(refused.value) or "shorten" in str(refused.value)
