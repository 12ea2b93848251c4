"""The verdict on its way to Slack: what is sent, what is refused, how long it may take; the URL stays secret."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gates.proof.workbench.servers import HANG, Asked, Reply, serve
from gates.reports.webhook import post


@contextmanager
def webhook(status: int = 200, *, hangs: bool = False) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook's URL, and what it was sent. One that hangs never answers."""
    seen: list[dict[str, Any]] = []

    def answer(asked: Asked) -> Reply:
        seen.append(json.loads(asked.body))
        return HANG if hangs else Reply(status, (("Location", "/elsewhere"),))

    with serve(answer) as url:
        yield f"{url}/services/planted-path-secret", seen


def test_the_body_is_posted_once() -> None:
    """A webhook that accepts it gives no message; the URL's scheme may have any case."""
    for spelled in (str.lower, str.upper):
        with webhook() as (url, seen):
            assert post(spelled(url), '{"text": "promote"}') == ""
        assert seen == [{"text": "promote"}]


@pytest.mark.parametrize(("status", "said"), [(500, "500"), (404, "404"), (302, "302")])
def test_a_refusal_is_named_without_the_url(status: int, said: str) -> None:
    """Any answer but success, a redirect among them, is a failure to post, and is not followed."""
    with webhook(status) as (url, seen):
        assert post(url, "{}") == f"the webhook answered {said}"
    assert len(seen) == 1


def test_a_webhook_that_hangs_is_given_up() -> None:
    """One time limit covers the whole exchange."""
    with webhook(hangs=True) as (url, _seen):
        started = time.monotonic()
        assert post(url, "{}", 0.2)
        assert time.monotonic() - started < 2.0


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/planted", "nonsense-planted", "file:///planted", "http://[planted"]
)
def test_an_address_of_no_use_is_no_crash(url: str) -> None:
    """The message says what is wrong, and does not show the URL."""
    error = post(url, "{}")
    assert error
    assert "planted" not in error
