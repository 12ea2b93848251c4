"""What a check may conclude from one answer: a path that is not there broke no promise."""

from __future__ import annotations

import pytest

from gates.checks.observation import Observer, Unmet
from gates.deployment.requests import Answer, Request
from gates.deployment.target import Target
from gates.evidence import TargetKind

RUN = "/dlq-replay/00000000-0000-4000-8000-000000000001"
WORDED = b'{"status": 404, "code": "not_found"}'


@pytest.mark.parametrize(
    ("method", "path", "status", "body", "wanted", "outcome"),
    [
        ("GET", "/metrics", 404, b"Not Found", 200, "unknown"),
        ("GET", "/metrics?x=1", 404, WORDED, 200, "unknown"),
        ("GET", "/openapi.json", 404, WORDED, 200, "unknown"),
        ("POST", "/dlq-replay", 404, b"", 401, "unknown"),
        ("POST", "/dlq-replay", 404, WORDED, 200, "unknown"),
        ("POST", "/events", 404, WORDED, 202, "unknown"),
        ("GET", RUN, 404, b"<h1>Not Found</h1>", 200, "unknown"),
        ("GET", RUN, 404, WORDED, 200, "fail"),
        ("GET", RUN, 404, WORDED, 404, "pass"),
        ("GET", "/metrics", 500, b"", 200, "fail"),
        ("POST", "/dlq-replay", 403, WORDED, 401, "fail"),
    ],
)
def test_a_path_that_is_not_there_is_absent_and_no_failure(
    method: str, path: str, status: int, body: bytes, wanted: int, outcome: str
) -> None:
    """A 404 in the service's own words about an item is its answer; any other one says that nobody is there."""
    observer = Observer(Target(TargetKind.STAGING))
    asked, answer = Request(method, path), Answer(status, (), body, 1.0)
    if outcome == "unknown":
        with pytest.raises(Unmet, match="the path is not there"):
            observer.expect(asked, answer, wanted)
    elif outcome == "fail":
        with pytest.raises(AssertionError):
            observer.expect(asked, answer, wanted)
    else:
        assert observer.expect(asked, answer, wanted) is answer
