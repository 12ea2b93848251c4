"""A history of decisions, and requests to the server that reads it."""

import datetime as dt
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from gates.operator.serve import Desk, VerdictServer
from gates.past_decisions import PastDecision
from gates.verdict import Decision

NOW = dt.datetime(2026, 1, 2, 12, 0, tzinfo=dt.UTC)

ROLLBACK = "/v1/flagger/rollback"


@contextmanager
def served(state: Path, token: str = "", **limits: Any) -> Iterator[int]:
    """The port of a server over a state folder."""
    desk = Desk(state, dt.timedelta(minutes=60), lambda: NOW, token)
    with VerdictServer(("127.0.0.1", 0), desk, **limits) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def decided(decision: Decision, release: str = "r-1", minutes: float = 5, run_id: str = "a1") -> PastDecision:
    at = (NOW - dt.timedelta(minutes=minutes)).isoformat()
    return PastDecision(run_id, release, decision, "the reason", at, at, passed=7, failed=1, unknown=2)


def ask(
    port: int, path: str, body: object = None, token: str = "", method: str = "", host: str = ""
) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    text = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    headers |= {"Host": host} if host else {}
    connection.request(method or ("GET" if body is None else "POST"), path, text, headers)
    answer = connection.getresponse()
    told = answer.read().decode()
    connection.close()
    return answer.status, told


def verdict(port: int, release: str = "r-1") -> dict[str, str]:
    status, text = ask(port, f"/v1/verdict?release={release}")
    assert status == 200
    told: dict[str, str] = json.loads(text)
    return told
