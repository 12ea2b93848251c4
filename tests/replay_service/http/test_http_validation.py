"""Strict validation, where no drill shows it: the field that is named, odd spellings, and events."""

from typing import Any

import httpx
import pytest

from tests.replay_service.http.service_process import encode, post

COMPANY = "8d5c7a3e-0c5f-4f53-9d2f-1b2c3d4e5f60"


def test_a_large_batch_hides_no_other_mistake(http: httpx.Client) -> None:
    """A field of the wrong type is named, also beside a batch that is too large."""
    answer = post(http, {"company_id": COMPANY, "max": 51, "force": 1})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.text
    assert "force" in [e["field"] for e in answer.json()["errors"]]


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + encode({"company_id": COMPANY}),
        b'{"company_id":"%s","max":%s}' % (COMPANY.encode(), b"9" * 5000),
        b'{"company_id":"%s","m\\u0061x":1,"max":1}' % COMPANY.encode(),
        b'{"company_id":"%s","error_type":"a\nb"}' % COMPANY.encode(),
        b'{"a":' * 10000 + b"1" + b"}" * 10000,
    ],
)
def test_bad_json_is_refused(http: httpx.Client, body: bytes) -> None:
    """Text that a lenient parser would accept or choke on is 400, quickly."""
    answer = post(http, body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.text
    assert answer.json()["errors"]
    assert answer.elapsed.total_seconds() < 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"event_type": None}, "event_type"),
        ({"event_type": ""}, "event_type"),
        ({"payload": None}, "payload"),
        ({"payload": "x"}, "payload"),
        ({"aggregate_key": None}, "aggregate_key"),
        ({"event_id": "x"}, "event_id"),
        ({"max": 1}, "max"),
    ],
)
def test_bad_events_are_named(http: httpx.Client, change: dict[str, Any], field: str) -> None:
    """Events are validated as strictly."""
    answer = post(http, {"company_id": COMPANY, "event_type": "a", "payload": {}, **change}, "/events")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert [e["field"] for e in answer.json()["errors"]] == [field]
    assert post(http, b'{"payload":{"a":1e400}}', "/events").json()["errors"][0]["field"] == ""
