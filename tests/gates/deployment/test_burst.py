"""Requests that are sent at once."""

from threading import Barrier

import pytest

from gates.deployment.http import client
from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.requests import Request
from gates.proof.workbench.servers import Reply, serve

REQUESTS = [Request("GET", f"/{n}") for n in range(3)]


def test_answers_come_in_the_order_of_the_requests() -> None:
    """Each request of a burst has its own answer in its place, and one that got none has that."""
    with serve(lambda request: Reply(body=request.path.encode())) as url, HttpDoor(url) as door:
        assert [answer.body for answer in door.burst(REQUESTS)] == [b"/0", b"/1", b"/2"]  # type: ignore[union-attr]


def test_a_burst_that_was_held_up_got_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the gate could not send at once, as after its machine slept, nothing is known of the target."""

    def broken(parties: int) -> Barrier:
        barrier = Barrier(parties)
        barrier.abort()
        return barrier

    monkeypatch.setattr(client, "Barrier", broken)
    with HttpDoor("http://127.0.0.1:9") as door:
        answers = door.burst(REQUESTS)
    assert [(type(answer), "sent at once" in str(answer)) for answer in answers] == [(NoAnswer, True)] * 3
