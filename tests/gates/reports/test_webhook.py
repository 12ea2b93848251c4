"""The verdict on its way to Slack: what is sent, what is refused, how long it may take; the URL stays secret."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from gates.reports.webhook import post
from tests.small_target import listening


@contextmanager
def webhook(status: int = 200, wait_s: float = 0.0) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook's URL, and what it was sent. It answers after so many seconds, or when it is closed."""
    seen: list[dict[str, Any]] = []
    closing = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            closing.wait(wait_s)
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

    with listening(Handler) as url:
        try:
            yield f"{url}/services/planted-path-secret", seen
        finally:
            closing.set()


def test_the_body_is_posted_once() -> None:
    """A webhook that takes it leaves nothing to say."""
    with webhook() as (url, seen):
        assert post(url, '{"text": "promote"}') == ""
    assert seen == [{"text": "promote"}]


@pytest.mark.parametrize(("status", "said"), [(500, "500"), (404, "404"), (302, "302")])
def test_a_refusal_is_named_without_the_url(status: int, said: str) -> None:
    """Any answer but success, a redirect among them, is a failure to post, and is not followed."""
    with webhook(status) as (url, seen):
        assert post(url, "{}") == f"the webhook answered {said}"
    assert len(seen) == 1


def test_a_webhook_that_hangs_is_given_up() -> None:
    """The limit counts for everything together."""
    with webhook(wait_s=30.0) as (url, _seen):
        started = time.monotonic()
        assert post(url, "{}", 0.2)
        assert time.monotonic() - started < 2.0


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/planted", "nonsense-planted", "file:///planted", "http://[planted"]
)
def test_an_address_of_no_use_is_no_crash(url: str) -> None:
    """It is said what is wrong, and never where."""
    error = post(url, "{}")
    assert error
    assert "planted" not in error
