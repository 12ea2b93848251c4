"""What a check may conclude from one answer: a path that is not there broke no promise."""

import json

import pytest

from gates.checks.observation import Observer, Unmet
from gates.contract.names import Names, names_of
from gates.deployment.dialect.current import use
from gates.deployment.requests import Answer, Request
from gates.deployment.target import Target
from gates.evidence import CheckSpec, Outcome, Severity, TargetKind, Where

RUN = "/dlq-replay/00000000-0000-4000-8000-000000000001"
CHECK = CheckSpec("t/one", "It answers.", "Nobody gets an answer.", Severity.PAGE, Where.READ_ONLY)
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


@pytest.mark.parametrize(
    ("path", "body", "is_told"),
    [("/dlq-replay", WORDED, True), ("/dlq-replay", b"", False), ("/events", WORDED, False)],
)
def test_a_path_that_has_answered_is_there(path: str, body: bytes, is_told: bool) -> None:
    """Who answered a control of the check, and says `not_found` in its own words to the next request of the same path,
    has refused that one; without words it may be another server's answer.
    """
    observer = Observer(Target(TargetKind.STAGING))
    observer.expect(Request("POST", path), Answer(200, (), b"{}", 1.0), 200, control=True)
    with pytest.raises(AssertionError if is_told else Unmet):
        observer.expect(Request("POST", "/dlq-replay"), Answer(404, (), body, 1.0), 403)
    with pytest.raises(AssertionError if path == "/dlq-replay" else Unmet):  # what is there has other methods
        observer.expect(Request("PUT", "/dlq-replay"), Answer(404, (), body, 1.0), 405)


@pytest.mark.parametrize(
    ("status", "wanted"), [(403, 400), (422, (400, 403)), (403, 401), (401, 400), (200, 400), (400, 200), (403, 429)]
)
@pytest.mark.parametrize("names", [Names(), names_of({"http": {"code_member": "problem.code"}})], ids=["", "names"])
def test_a_refusal_for_another_reason_shows_nothing(status: int, wanted: int | tuple[int, ...], names: Names) -> None:
    """Whatever words a deployment has: who is refused before the check under test never came to it."""
    use(names)
    observer = Observer(Target(TargetKind.STAGING))
    with pytest.raises(AssertionError):
        observer.expect(Request("POST", "/dlq-replay"), Answer(status, (), b"{}", 1.0), wanted)


def test_a_message_says_what_came_where_it_was_read_as_something_else() -> None:
    """Whoever looks into the log of the service finds the status there."""
    came = Answer(404, (), b'{"code": "not_found"}', 1.0)
    answer = Answer(403, (), b'{"code": "forbidden"}', 1.0, received=came)
    with pytest.raises(AssertionError, match=r"observed 403 forbidden \(it answered 404; names: http"):
        Observer(Target(TargetKind.STAGING)).expect(Request("GET", "/x"), answer, 200)


def test_a_refused_field_is_named() -> None:
    """A refusal that says which field is why is told with it."""
    body = b'{"code": "invalid_request", "errors": [{"field": "max", "message": "is required"}]}'
    with pytest.raises(AssertionError, match=r"observed 400 invalid_request \(max: is required\)"):
        Observer(Target(TargetKind.STAGING)).expect(Request("POST", "/events"), Answer(400, (), body, 1.0), 202)


@pytest.mark.parametrize(
    ("body", "is_told"),
    [(b'{"code": "rate_limited"', True), (b'{"code": "a", "code": "rate_limited"}', True), (b"{ }", False)],
)
def test_a_body_that_cannot_be_read_is_told_as_such(body: bytes, is_told: bool) -> None:
    """Without that word, `observed 429; allowed: 429 rate_limited` sends people to the wrong place."""
    answer = Answer(429, (("x-request-id", "of-the-service"),), body, 1.0)
    with pytest.raises(AssertionError) as failed:
        Observer(Target(TargetKind.STAGING)).expect(Request("POST", "/dlq-replay"), answer, 429, "rate_limited")
    assert ("names a member twice" in str(failed.value)) == is_told


@pytest.mark.parametrize(("age", "is_told"), [("12", True), ("0", False), ("soon", False)])
def test_an_answer_from_a_cache_is_told_as_such(age: str, is_told: bool) -> None:
    """Whoever reads of a forged request that was answered learns that the service never saw it."""
    answer = Answer(404, (("age", age),), WORDED, 1.0)
    with pytest.raises(
        AssertionError, match="from a cache, 12 s old" if is_told else "observed 404 not_found; allowed"
    ):
        Observer(Target(TargetKind.STAGING)).expect(Request("GET", RUN), answer, 401)


@pytest.mark.parametrize(
    ("status", "code", "wanted", "symptom"),
    [
        (422, "invalid_request", 400, "invalid_request comes with 422 in place of 400"),
        (409, "forbidden", (401, 403), "forbidden comes with 409 in place of 403"),
        (200, "", 202, "200 comes in place of 202"),
        (403, "forbidden", 400, "POST /events answered 403 forbidden"),
        (500, "", 202, "POST /events answered 500"),
        (202, "", 400, None),
    ],
)
@pytest.mark.parametrize("control", [True, False])
def test_the_evidence_says_what_all_such_answers_have_in_common(
    status: int, code: str, wanted: int | tuple[int, ...], symptom: str | None, *, control: bool
) -> None:
    """The decision finds one cause behind many checks by these words, whichever check met it, and also in a control."""
    observer = Observer(Target(TargetKind.STAGING))
    body = json.dumps({"code": code, "errors": [{"field": "max", "message": "x; allowed: 999"}]} if code else {})
    with pytest.raises((AssertionError, Unmet)) as met:
        observer.expect(Request("POST", "/events"), Answer(status, (), body.encode(), 1.0), wanted, control=control)
    outcome = Outcome.UNKNOWN if control else Outcome.FAIL
    line = observer.evidence_of(CHECK, outcome, str(met.value), "2026-01-01T00:00:00+00:00", 1.0)
    assert line.details.get("symptom") == symptom
