"""Servers that answer every request alike pass no check but those of liveness."""

from pathlib import Path

import pytest

from faults.proxy.server import Reply, proxy
from gates import catalogue
from gates.evidence import Outcome
from tests.drills.examination import OVER_HTTP, brief_waits, examine, matching

JSON = (("Content-Type", "application/json"),)
SERVERS = {
    "yes to all": Reply(200, JSON, b"{}"),
    "accepted and empty": Reply(202, JSON, b""),
    "no to all": Reply(401, JSON, b'{"code":"unauthenticated"}'),
    "forbidden": Reply(403, (("Content-Type", "application/problem+json"),), b'{"code":"forbidden"}'),
    "invalid": Reply(400, JSON, b'{"code":"invalid_request","errors":[]}'),
    "limited": Reply(429, (*JSON, ("Retry-After", "1")), b'{"code":"rate_limited"}'),
    "broken": Reply(500, JSON, b"{}"),
    "a login page": Reply(200, (("Content-Type", "text/html"),), b"<html>please log in</html>"),
    "a redirect": Reply(302, (("Location", "/login"),), b""),
}
PASSES_ON = {
    "yes to all": {"drill/http-surface/ready", "drill/http-surface/open-routes"},
    "a login page": {"drill/http-surface/ready", "drill/http-surface/open-routes"},
}
"""A server that says yes is alive, as far as a status can say; what its answers mean is examined elsewhere."""


@pytest.mark.parametrize("server", SERVERS)
def test_degenerate_server_passes_nothing(server: str, variables: dict[str, str], tmp_path: Path) -> None:
    """A server with one answer for everything passes only the checks of liveness."""
    phases = {spec.id: spec.phase for spec in catalogue.load()}
    early = [i for i in matching(OVER_HTTP) if phases[i] == "main"]
    with brief_waits(), proxy(variables["BASE_URL"], lambda *_: SERVERS[server], is_careless=True) as url:
        checks = [*early, "drill/http-surface/ready"]
        seen = examine({**variables, "BASE_URL": url}, checks, tmp_path, ends={*Outcome} - {Outcome.PASS})
    passed = {i for i, e in seen.items() if e.outcome is Outcome.PASS}
    assert sorted(passed - PASSES_ON.get(server, set())) == []
