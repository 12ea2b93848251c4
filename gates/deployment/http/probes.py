"""The requests that the gate makes outside of its own drill tenants: the one place that builds them.

None can have an effect, whatever the service makes of it. A GET asks for what does not exist. The body of a POST is a
single brace: it is no JSON, and names no tenant and no item. `{}` would not do: where the tenant stands in the token,
and limits have defaults, it means "replay all". Where a whole body is needed, it is a dry run for a tenant that does
not exist; a deployment that claims no dry runs could carry it out, and gets the brace again.
"""

import uuid
from collections.abc import Iterator
from typing import Any

from gates.deployment import requests
from gates.deployment.dialect.current import current
from gates.deployment.ids import new_id

REPLAY, EVENTS = "/dlq-replay", "/events"
IMPOSSIBLE = b"{"


def absent_run() -> str:
    """The path of a run that does not exist."""
    return f"{REPLAY}/{new_id('run')}"


def bare(path: str = REPLAY) -> requests.Request:
    """A POST without credentials."""
    return requests.post(path, IMPOSSIBLE)


def bare_get() -> requests.Request:
    """A GET without credentials."""
    return requests.Request("GET", absent_run())


def signed(secret: str, unix_seconds: int) -> Iterator[requests.Request]:
    """The requests in every form in which a secret signs; the GET first."""
    yield requests.signed_get(absent_run(), secret, unix_seconds)
    for path in (REPLAY, EVENTS):
        yield requests.signed_post(path, IMPOSSIBLE, secret)
        yield requests.signed_post_v2(path, IMPOSSIBLE, secret, unix_seconds)


def with_token(token: str) -> Iterator[requests.Request]:
    """The requests with a bearer token; the GET first."""
    yield requests.token_get(absent_run(), token)
    yield requests.token_post(REPLAY, IMPOSSIBLE, token)


def has_dry_runs() -> bool:
    """Whether the deployment claims to honour dry runs."""
    return current().claims("dry-run") and "dry_run" not in current().lacking


def for_nobody(company: str = "", **fields: Any) -> bytes:
    """The body of a replay of a tenant that does not exist."""
    if not has_dry_runs():
        return IMPOSSIBLE
    return requests.encode_body(requests.replay_fields(company or str(uuid.uuid4()), **{"dry_run": True, **fields}))
