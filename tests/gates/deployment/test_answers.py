"""What of an answer the service says, and what only belongs to the request or the connection."""

import json

import pytest

from gates.contract.names import Names
from gates.deployment.dialect.current import current, use
from gates.deployment.requests import Answer

ID = "0CA2E54E-AE0C-47B1-B260-11B59A33A397"


def answer(*headers: tuple[str, str], **members: str) -> Answer:
    return Answer(401, headers, json.dumps(members).encode(), 1.0)


def test_what_is_every_requests_own_is_not_said() -> None:
    """Request ids, traces and times are left out, in every framework's spelling; all else counts."""
    one = answer(("x-request-id", "r1"), detail="no (r1)", traceId="00-1", timestamp="12:00", request_id="r1")
    two = answer(("x-request-id", "r2"), detail="no (r2)", traceId="00-2", timestamp="12:01", request_id="r2")
    assert one.said() == two.said() == {"detail": "no (<id>)"}
    assert one.said() != answer(("x-request-id", "r1"), detail="stale").said()
    assert Answer(401, (("x-request-id", "r1"),), b"no r1", 1.0).said() == b"no <id>"


def test_what_a_request_asked_for_is_not_said() -> None:
    """An answer may repeat the id that was asked for, also in links; any other difference counts."""

    def missing(asked: str, **more: object) -> Answer:
        links = {"self": {"href": f"/dlq-replay/{asked}"}, "instance": asked}
        return Answer(404, (), json.dumps({"detail": f"no run {asked}", "_links": [links], **more}).encode(), 1.0)

    assert missing("a1").said("a1") == missing("b2").said("b2")
    assert missing("a1").said("a1") != missing("b2", total=1).said("b2")


def test_a_word_is_shown_however_its_letters_are_spelled() -> None:
    """JSON may escape any letter; other bodies are read as they are."""
    escaped = b'{"detail": "' + "".join(f"\\u{ord(c):04x}" for c in "outbox.enabled is off").encode() + b'"}'
    for body in (escaped, b"<p>outbox.enabled</p>"):
        assert Answer(403, (), body, 1.0).says("outbox.enabled")
    assert not Answer(403, (), escaped, 1.0).says("dlq.replay.enabled")


def test_headers_of_the_connection_are_not_the_services() -> None:
    """Headers of the connection are left out; all others count."""
    kept = answer(("content-type", "x"), ("content-length", "3"))
    last = answer(("content-type", "x"), ("connection", "close"), ("transfer-encoding", "chunked"))
    assert kept.header_names == last.header_names == ["content-type"]
    assert answer(("content-type", "x"), ("x-tenant", "1")).header_names != kept.header_names


@pytest.mark.parametrize(("ids", "items"), [({}, [ID.lower(), "A"]), ({"item": "text"}, [ID, "A"])])
def test_a_uuid_is_the_same_in_any_case_and_a_key_is_not(ids: dict[str, str], items: list[str]) -> None:
    """UUIDs are compared without case; ids that are text, and keys that the caller gave, letter by letter."""
    before = current()
    use(Names(ids=ids))
    try:
        found = Answer(200, (), json.dumps({"items": [ID, "A"], "idempotency_key": ID}).encode(), 1.0).json()
    finally:
        use(before)
    assert found == {"items": items, "idempotency_key": ID}
