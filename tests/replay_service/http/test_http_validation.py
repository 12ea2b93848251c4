"""Steps 1 and 3: method, media type, size, strict validation."""

import uuid
from typing import Any

import httpx
import pytest

from tests.replay_service.http.service_process import Db, encode, forget_limit, post

COMPANY = "8d5c7a3e-0c5f-4f53-9d2f-1b2c3d4e5f60"


def test_method_is_checked_first(http: httpx.Client) -> None:
    """Another method is 405 with Allow, before authentication."""
    for method, path, allowed in (
        ("GET", "/dlq-replay", {"POST"}),
        ("PUT", "/dlq-replay", {"POST"}),
        ("OPTIONS", "/events", {"POST"}),
        ("TRACE", "/events", {"POST"}),
        ("POST", "/healthz", {"GET", "HEAD"}),
        ("DELETE", f"/dlq-replay/{COMPANY}", {"GET", "HEAD"}),
    ):
        answer = http.request(method, path, headers={"x-http-method-override": "POST"})
        assert answer.status_code == 405, (method, path)
        assert set(answer.headers["allow"].split(", ")) == allowed
        assert answer.json()["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("content-type", "application/json")], 401),
        ([("content-type", 'Application/JSON; charset="UTF-8"')], 401),
        ([("content-type", "application/json;charset=utf-8"), ("content-encoding", "identity")], 401),
        ([], 415),
        ([("content-type", "")], 415),
        ([("content-type", "text/plain")], 415),
        ([("content-type", "application/jsonx")], 415),
        ([("content-type", "application/json; charset=utf-16")], 415),
        ([("content-type", "application/json; profile=x")], 415),
        ([("content-type", "application/x-www-form-urlencoded")], 415),
        ([("content-type", "application/json"), ("content-type", "text/plain")], 415),
        ([("content-type", "application/json"), ("content-encoding", "gzip")], 415),
        ([("content-type", "application/json"), ("content-encoding", "identity, gzip")], 415),
    ],
)
def test_media_type_is_checked_before_authentication(
    http: httpx.Client, headers: list[tuple[str, str]], status: int
) -> None:
    """Only plain application/json in UTF-8 gets as far as the 401."""
    answer = http.post("/dlq-replay", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (
        status,
        {401: "unauthenticated", 415: "unsupported_media_type"}[status],
    )


def test_large_bodies_are_refused_before_authentication(http: httpx.Client) -> None:
    """64 KiB pass on, more is 413, chunked or not; up to 1 MiB is read so that the client sees the answer."""
    headers = {"content-type": "application/json"}

    def chunks(size: int) -> Any:
        yield from (b"x" * 4096 for _ in range(size // 4096))

    assert http.post("/dlq-replay", content=b"x" * 65536, headers=headers).status_code == 401
    for size in (65537, 1024 * 1024):
        answer = http.post("/dlq-replay", content=b"x" * size, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert http.post("/dlq-replay", content=chunks(65536), headers=headers).status_code == 401
    assert http.post("/events", content=chunks(131072), headers=headers).status_code == 413
    assert http.post("/dlq-replay", content=b"x" * 65537, headers={"content-type": "text/plain"}).status_code == 415


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"max": v}, "max") for v in (0, -1, True, "10", 10.5, None, [1], -(10**30))
] + [
    ({"company_id": None}, "company_id"),
    ({"company_id": COMPANY.replace("-", "")}, "company_id"),
    ({"company_id": f"{{{COMPANY}}}"}, "company_id"),
    ({"company_id": COMPANY + " "}, "company_id"),
    ({"company_id": 5}, "company_id"),
    ({"idempotency_key": ""}, "idempotency_key"),
    ({"idempotency_key": "x" * 201}, "idempotency_key"),
    ({"idempotency_key": "a\tb"}, "idempotency_key"),
    ({"idempotency_key": "ключ"}, "idempotency_key"),
    ({"idempotency_key": None}, "idempotency_key"),
    ({"dry_run": "false"}, "dry_run"),
    ({"dry_run": 0}, "dry_run"),
    ({"dry_run": None}, "dry_run"),
    ({"force": "true"}, "force"),
    ({"dlq_ids": []}, "dlq_ids"),
    ({"dlq_ids": "x"}, "dlq_ids"),
    ({"dlq_ids": [None]}, "dlq_ids"),
    ({"dlq_ids": [COMPANY, "x"]}, "dlq_ids"),
    ({"error_type": ""}, "error_type"),
    ({"error_type": "x" * 201}, "error_type"),
    ({"error_type": 5}, "error_type"),
    ({"dryrun": True}, "dryrun"),
    ({"tenant_id": COMPANY}, "tenant_id"),
]


@pytest.mark.parametrize(("change", "field"), BAD_FIELDS)
def test_bad_fields_are_named(http: httpx.Client, change: dict[str, Any], field: str) -> None:
    """A field of the wrong type, range or name is 400 with its name, never coerced."""
    answer = post(http, {"company_id": COMPANY, **change})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.text
    assert [e["field"] for e in answer.json()["errors"]] == [field]
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b"{}{}",
        b"\xef\xbb\xbf" + encode({"company_id": COMPANY}),
        b'{"company_id":"\xff"}',
        b'{"company_id":"%s","max":1e1}' % COMPANY.encode(),
        b'{"company_id":"%s","max":10.0}' % COMPANY.encode(),
        b'{"company_id":"%s","max":NaN}' % COMPANY.encode(),
        b'{"company_id":"%s","max":%s}' % (COMPANY.encode(), b"9" * 5000),
        b'{"company_id":"%s","max":1,"max":1}' % COMPANY.encode(),
        b'{"company_id":"%s","m\\u0061x":1,"max":1}' % COMPANY.encode(),
        b'{"company_id":"%s","error_type":"a\\u0000"}' % COMPANY.encode(),
        b'{"company_id":"%s","error_type":"\\ud800"}' % COMPANY.encode(),
        b'{"company_id":"%s","error_type":"a\nb"}' % COMPANY.encode(),
        b"[" * 60000,
        b'{"a":' * 10000 + b"1" + b"}" * 10000,
        b'{"company_id":"%s","x":%s}' % (COMPANY.encode(), b"[" * 64 + b"]" * 64),
    ],
)
def test_bad_json_is_refused(http: httpx.Client, body: bytes) -> None:
    """Text that a lenient parser would accept or choke on is 400, quickly."""
    answer = post(http, body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.text
    assert answer.json()["errors"]
    assert answer.elapsed.total_seconds() < 2


def test_large_batches_have_their_own_code(http: httpx.Client) -> None:
    """More than 50 items, asked by number or by ids, is batch_too_large; other errors come first."""
    ids = [str(uuid.uuid4()) for _ in range(51)]
    for change in ({"max": 51}, {"max": 10**9}, {"max": 10**30}, {"dlq_ids": ids}, {"dlq_ids": [ids[0]] * 51}):
        answer = post(http, {"company_id": COMPANY, **change})
        assert (answer.status_code, answer.json()["code"]) == (400, "batch_too_large"), answer.text
    assert post(http, {"company_id": COMPANY, "max": 51, "force": 1}).json()["code"] == "invalid_request"


def test_valid_borders_are_accepted(http: httpx.Client, db: Db, company: str) -> None:
    """The first and last allowed values pass, in any spelling that JSON allows."""
    ids = [str(uuid.uuid4()) for _ in range(50)]
    for change in (
        {"max": 1},
        {"max": 50},
        {"idempotency_key": " "},
        {"idempotency_key": "~" * 200},
        {"dlq_ids": [i.upper() for i in ids]},
        {"error_type": "%_'\"\\;--é😀" + "x" * 180},
    ):
        forget_limit(db, company)
        answer = post(http, {"company_id": company.upper(), "dry_run": True, **change})
        assert answer.status_code == 200, answer.text
        assert answer.json()["company_id"] == company
    forget_limit(db, company)
    spaced = b' \n{ "company_id" : "%s" ,\t"dry_run" : true , "error_type":"\\ud83d\\ude00" }\r\n' % company.encode()
    assert post(http, spaced).status_code == 200


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
