"""Posts a verdict to a Slack webhook within a time limit. A failure never changes a verdict."""

from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.http.limits import within
from gates.deployment.requests import JSON_TYPE, Request

LIMIT_S = 5.0
"""The limit for name lookup, connection, sending and answer together."""


def post(url: str, body: str, limit_s: float = LIMIT_S) -> str:
    """POST the JSON text; returns an empty string, or why it failed, without the URL, which is a secret."""
    try:
        return within(lambda: _sent(url, body, limit_s), limit_s)
    except TimeoutError:
        return f"the webhook did not answer within {limit_s:g} s"


def _sent(url: str, body: str, limit_s: float) -> str:
    if not url.lower().startswith(("https://", "http://")):
        return "SLACK_WEBHOOK_URL is no http or https address"
    request = Request("POST", "", (("Content-Type", JSON_TYPE), ("User-Agent", "replaygate")), body.encode())
    try:
        with HttpDoor(url, timeout_s=limit_s, as_it_is=True) as door:
            status = door.send(request).status
    except NoAnswer as none:
        return f"the webhook could not be reached ({type(none.__cause__).__name__})"
    return "" if 200 <= status < 300 else f"the webhook answered {status}"
