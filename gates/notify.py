"""Posts a verdict to a Slack webhook, within a time limit. What becomes of it never changes a verdict."""

from __future__ import annotations

import queue
import threading
import urllib.error
import urllib.request
from http.client import HTTPException

LIMIT_S = 5.0
"""For everything together: name, connection, sending, answer."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A webhook answers itself; what it was sent goes nowhere else."""

    def redirect_request(self, *_args: object, **_more: object) -> None:
        return None


def post(url: str, body: str, limit_s: float = LIMIT_S) -> str:
    """POST the JSON text; an empty string, or why it was not taken, without the URL: that is a secret."""
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    # a thread, because a socket's own limit counts anew with every byte, and looking up a name has none
    threading.Thread(target=lambda: said.put(_sent(url, body, limit_s)), name="slack", daemon=True).start()
    try:
        return said.get(timeout=limit_s)
    except queue.Empty:
        return f"the webhook did not answer within {limit_s:g} s"


def _sent(url: str, body: str, limit_s: float) -> str:
    if not url.startswith(("https://", "http://")):
        return "SLACK_WEBHOOK_URL is no http or https address"
    try:
        request = urllib.request.Request(  # noqa: S310  -- the scheme was looked at
            url, body.encode(), {"Content-Type": "application/json", "User-Agent": "replaygate"}
        )
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=limit_s):
            return ""
    except urllib.error.HTTPError as error:
        return f"the webhook answered {error.code}"
    except (OSError, HTTPException, ValueError) as error:
        return f"the webhook could not be reached ({type(error).__name__})"
