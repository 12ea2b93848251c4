"""Members that the deployment expects in the path, the query, a header or another member, and their signatures."""

import base64
import hashlib
import hmac
import json

import pytest

from gates.contract.names import names_of
from gates.deployment.dialect.current import use
from gates.deployment.dialect.exchange import on_the_wire, path_of, understood
from gates.deployment.dialect.places import AbsentMember
from gates.deployment.requests import Answer, Request, claims_of, mint_token, sign_v2, signed_post
from gates.text.foreign import json_object

SECRET = "a-secret-of-32-characters-or-more"
PLACED = names_of(
    {
        "ids": {"company_id": "bigint"},
        "http": {
            "paths": {"/dlq-replay": "/v1/accounts/{account}/redrives", "/events": "/v1/notices"},
            "fields": {
                "company_id": ["path:account", "account_no"],
                "idempotency_key": ["header:Idempotency-Key", "key"],
                "dry_run": ["query:simulate", "simulated"],
                "event_id": "answer:notice",
                "max": "limit",
            },
            "code_member": "error.code",
            "codes": {"forbidden": ["NO_ACCOUNT", 404], "not_found": "NO_ACCOUNT"},
            "signature": {"v2": "t={t},s={hex}", "signed": "{t}.{method}.{path}.{body}"},
        },
    }
)


@pytest.mark.parametrize(
    ("ours", "path", "headers", "body"),
    [
        (b'{"company_id":"12","max":3}', "/v1/accounts/12/redrives", {}, b'{"limit":3}'),
        (b'{"max":3, "company_id": "12" }', "/v1/accounts/12/redrives", {}, b'{"limit":3 }'),
        (b'{"company_id":"12","dry_run":true}', "/v1/accounts/12/redrives?simulate=true", {}, b"{}"),
        (b'{"company_id":"12","dry_run":"maybe"}', "/v1/accounts/12/redrives?simulate=maybe", {}, b"{}"),
        (b'{"company_id":"a/b?c","max":1}', "/v1/accounts/a%2Fb%3Fc/redrives", {}, b'{"limit":1}'),
        (
            b'{"idempotency_key":"k 1","company_id":"12","max":1}',
            "/v1/accounts/12/redrives",
            {"Idempotency-Key": "k 1"},
            b'{"limit":1}',
        ),
        (b'{"company_id":"12","max":1', "/v1/accounts/12/redrives", {}, b'{"limit":1'),
        (b'{"max":{"company_id":1},"company_id":"7"}', "/v1/accounts/7/redrives", {}, b'{"limit":{"company_id":1}}'),
    ],
)  # fmt: skip
def test_a_member_travels_where_the_target_has_it(ours: bytes, path: str, headers: dict[str, str], body: bytes) -> None:
    """It goes to the path, the query or a header; the rest of the body keeps its form."""
    use(PLACED)
    sent = on_the_wire(Request("POST", "/dlq-replay", (), ours))
    assert (sent.path, dict(sent.headers), sent.body) == (path, headers, body)


@pytest.mark.parametrize(
    "said",
    [
        b'{"company_id":"12","dry_run":"true"}',
        b'{"company_id":"12","dry_run":null}',
        b'{"company_id":"12","dry_run":[true]}',
        b'{"company_id":"12","dry_run":false,"dry_run":true}',
        b'{"company_id":12}',
        b'{"company_id":null}',
        b'{"company_id":""}',
        b'{"company_id":"12","idempotency_key":5}',
        b'{"company_id":"12","idempotency_key":""}',
        b'{"company_id":"12","idempotency_key":" k"}',
        b'{"company_id":"12","idempotency_key":"a\\r\\nb: c"}',
        b'{"company_id":"12","event_id":"5"}',
    ],
)
def test_what_cannot_be_said_in_a_place_is_never_sent_as_another_request(said: bytes) -> None:
    """In a query "true" is true, so a wrong type cannot be sent: the check is unknown."""
    use(PLACED)
    with pytest.raises(AbsentMember):
        on_the_wire(Request("POST", "/dlq-replay", (), said))


def test_a_request_that_names_nobody_is_for_nobody() -> None:
    """A body that is no JSON goes to a tenant that does not exist."""
    use(PLACED)
    sent = on_the_wire(Request("POST", "/dlq-replay", (), b"{"))
    number = sent.path.removeprefix("/v1/accounts/").removesuffix("/redrives")
    assert (2**52 < int(number) < 2**53, sent.body) == (True, b"{")
    assert on_the_wire(Request("GET", "/dlq-replay/9")).path == sent.path + "/9"


def test_a_signature_covers_the_place_too() -> None:
    """It covers method, path with query, and body as sent; for a GET the body is empty."""
    use(PLACED)
    sent = on_the_wire(signed_post("/dlq-replay", {"company_id": "12", "dry_run": True, "max": 1}, SECRET))
    time_of = dict(sent.headers)["X-Transbot-Signature"].partition(",")[0].removeprefix("t=")
    message = f"{time_of}.POST.{sent.path}.".encode() + sent.body
    mac = hmac.new(SECRET.encode(), message, hashlib.sha256).hexdigest()
    assert dict(sent.headers)["X-Transbot-Signature"] == f"t={time_of},s={mac}"
    read = path_of("/dlq-replay/9", "12")
    mac = hmac.new(SECRET.encode(), b"5.GET./v1/accounts/12/redrives/9.", hashlib.sha256).hexdigest()
    assert sign_v2(SECRET, read.encode(), 5) == f"t=5,s={mac}"
    assert on_the_wire(Request("GET", read)).path == "/v1/accounts/12/redrives/9"
    assert path_of("/events/9", "12") == "/events/9"


def test_what_travels_elsewhere_lacks_the_rest_of_json() -> None:
    """Checks of types and doubled members do not apply to members outside the body."""
    elsewhere = {"event_id", "json of company_id", "json of dry_run", "json of idempotency_key"}
    assert set(PLACED.lacking) == elsewhere | {"signature without a time"}


@pytest.mark.parametrize(("method", "wanted"), [("POST", (403, "forbidden")), ("GET", (404, "not_found"))])
def test_one_code_is_read_as_the_endpoint_refuses(method: str, wanted: tuple[int, str]) -> None:
    """One code stands for two of the contract's; the endpoint tells which."""
    use(PLACED)
    answer = Answer(404, (), b'{"error":{"code":"NO_ACCOUNT"}}', 1.0)
    found = understood(answer, method, "/dlq-replay/9" if method == "GET" else "/dlq-replay")
    assert (found.status, found.code) == wanted


INSIDE = names_of(
    {
        "tenant_claim": "https://shop.example/merchant",
        "http": {
            "fields": {
                "company_id": ["merchant.ref", "done.merchant.ref"],
                "max": "options.limit",
                "dry_run": ["options.preview", "done.preview"],
                "replay_run_id": "done.id",
                "duplicate": "done.repeated",
                "errors": "failure.problems",
            },
            "code_member": "failure.kind",
        },
    }
)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            b'{"company_id":"c","max":1e1,"dry_run":null}',
            b'{"merchant":{"ref":"c"},"options":{"limit":1e1,"preview":null}}',
        ),
        (b'{"max": 1, "other": {"a": [1]}, "max": 2}', b'{"other": {"a": [1]},"options":{"limit": 1,"limit": 2}}'),
        (b'{"max":1} x', b'{"options":{"limit":1}} x'),
        (b'{"max":1', b'{"options.limit":1'),
        (b"[1]", b"[1]"),
    ],
)  # fmt: skip
def test_a_member_may_stand_inside_of_another(ours: bytes, theirs: bytes) -> None:
    """Nested members keep doubled names and odd numbers as they were."""
    use(INSIDE)
    assert on_the_wire(Request("POST", "/dlq-replay", body=ours)).body == theirs


def test_what_stands_inside_of_an_answer_is_read_once() -> None:
    """A null counts as present, a member that was read is removed, and errors name the contract's member."""
    use(INSIDE)
    said = {"done": {"id": None, "repeated": True, "preview": True, "merchant": {"ref": "c"}, "extra": 1}}
    found = understood(Answer(201, (), json.dumps(said).encode(), 1.0), "POST", "/dlq-replay").json()
    assert found["replay_run_id"] is None
    assert (found["done"], found["duplicate"]) == ({"extra": 1}, True)
    wrong = {"failure": {"kind": "BAD", "problems": [{"at": "options.limit", "why": "it is 0"}]}}
    found = understood(Answer(422, (), json.dumps(wrong).encode(), 1.0), "POST", "/dlq-replay").json()
    assert found["errors"][0]["field"] == "max"
    assert found["errors"][0]["message"] == "it is 0"


def test_a_claim_in_a_namespace_is_one_name() -> None:
    """The dots of a URL do not nest the claim."""
    use(INSIDE)
    token = mint_token(SECRET, {"sub": "s", "role": "company_admin", "company_id": "c"})
    said = json_object(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert said["https://shop.example/merchant"] == "c"
    assert claims_of(token)["company_id"] == "c"
