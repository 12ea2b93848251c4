"""HTTP with a deployment's own names: what is sent, what is signed, and how answers are read."""

import base64
import hashlib
import hmac
import json
import re

import pytest

from gates.contract.names import Names, names_of, user_of
from gates.deployment.dialect.current import real_claims, tenant_session, use
from gates.deployment.dialect.exchange import contract_path, on_the_wire, real_code, real_head, real_member, understood
from gates.deployment.http.metrics import parse_metrics
from gates.deployment.ids import new_id
from gates.deployment.redaction import hidden, redact_text
from gates.deployment.requests import Answer, Request, claims_of, curl, mint_token, sign_v2, signed_post
from gates.deployment.target import Target
from gates.evidence import TargetKind
from gates.text.foreign import json_object

SECRET = "a-secret-of-32-characters-or-more"
KEY = "anon-key-0123456789"

NAMES = names_of(
    {
        "ids": {"company_id": "bigint", "dead_letter_queue.id": "bigint"},
        "tenant_claim": "app_metadata.org",
        "http": {
            "paths": {"/dlq-replay": "/functions/v1/replay", "/healthz": "/health"},
            "headers": {"X-Transbot-Signature": "x-hub", "X-Request-Id": "sb-request-id"},
            "extra_headers": {"apikey": "$GATEWAY_KEY"},
            "fields": {
                "company_id": "orgId",
                "dlq_ids": "jobs",
                "status": "state",
                "items": "taken",
                "errors": "error.of",
            },
            "values": {"status": {"started": "accepted"}},
            "codes": {"agents_paused": ["PAUSED", 423], "forbidden": "NO", "feature_disabled": ["OFF", 403]},
            "code_member": "error.code",
            "signature": {"form": "sha256={hex}", "v2": "t={t},v1={hex}", "signed": "{t}:{body}"},
        },
    }
)


@pytest.fixture(autouse=True)
def _named() -> None:
    use(NAMES, {"GATEWAY_KEY": KEY})


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (b'{"company_id":"12","max":3}', b'{"orgId":12,"max":3}'),
        (b'{ "company_id" : "12" , "dlq_ids":["1","x"] }', b'{ "orgId" : 12 , "jobs":[1,"x"] }'),
        (b'{"company_id":12}', b'{"orgId":"12"}'),
        (b'{"payload":{"company_id":"12"},"company_id":null}', b'{"payload":{"company_id":"12"},"orgId":null}'),
        (b'{"company_id":"12","company_id":"13"', b'{"orgId":12,"orgId":13'),
        (b'{"x":"company_id","n":1e1}', b'{"x":"company_id","n":1e1}'),
        (b"\xff not json", b"\xff not json"),
        (b'["company_id"]', b'["company_id"]'),
    ],
)
def test_a_body_keeps_its_form(ours: bytes, theirs: bytes) -> None:
    """Only members and ids are translated; whatever else a drill did to the body stays."""
    assert on_the_wire(Request("POST", "/dlq-replay", (), ours)).body == theirs


def test_ids_that_are_numbers_may_travel_as_text() -> None:
    """With `ids: text`, ids and made-up ids are text; a number that a drill sends on purpose stays one."""
    named = {"ids": {"company_id": "bigint"}, "http": {"ids": "text", "fields": {"company_id": "orgId"}}}
    use(names_of(named))
    bodies = (b'{"company_id":"12"}', b'{"company_id":12}', b'{"company_id":"6f1c2c0e-0000-4000-8000-0123456789ab"}')
    sent = [json.loads(on_the_wire(Request("POST", "/events", (), body)).body)["orgId"] for body in bodies]
    assert sent[:2] == ["12", 12]
    assert 2**52 < int(sent[2]) < 2**53
    assert isinstance(sent[2], str)
    assert real_claims({"company_id": "12"}) == {"company_id": "12"}


def test_an_id_that_nobody_has_stays_one() -> None:
    """A made-up UUID becomes the same number each time, higher than any real id."""
    body = b'{"company_id":"6f1c2c0e-0000-4000-8000-0123456789ab"}'
    sent = [json.loads(on_the_wire(Request("POST", "/events", (), body)).body)["orgId"] for _ in range(2)]
    assert sent[0] == sent[1]
    assert 2**52 < sent[0] < 2**53


def test_what_is_signed_is_what_is_sent() -> None:
    """The signature covers the translated bytes and has its own header; path and key are translated."""
    sent = on_the_wire(signed_post("/dlq-replay", {"company_id": "12"}, SECRET))
    headers = dict(sent.headers)
    assert sent.path == "/functions/v1/replay"
    assert headers["x-hub"] == "sha256=" + hmac.new(SECRET.encode(), sent.body, hashlib.sha256).hexdigest()
    assert headers["apikey"] == KEY
    message = b"5:/functions/v1/replay/9"
    assert sign_v2(SECRET, b"/dlq-replay/9", 5) == (
        "t=5,v1=" + hmac.new(SECRET.encode(), message, hashlib.sha256).hexdigest()
    )


def test_a_head_that_is_written_by_hand_has_the_words_too() -> None:
    """Raw requests get the deployment's path, headers and key."""
    assert real_head("POST {path}/dlq-replay HTTP/1.1\nX-Transbot-Signature: x") == (
        f"POST {{path}}/functions/v1/replay HTTP/1.1\nx-hub: x\napikey: {KEY}"
    )


@pytest.mark.parametrize(
    ("status", "theirs", "wanted", "ours"),
    [
        (200, {"orgId": 12, "state": "accepted"}, 200, {"company_id": "12", "status": "started"}),
        (200, {"taken": [1]}, 200, {"items": ["1"]}),
        (423, {"error": {"code": "PAUSED", "of": [1]}}, 409, {"code": "agents_paused", "errors": [1]}),
        (403, {"error": {"code": "NO"}}, 403, {"code": "forbidden"}),
        (403, {"error": {"code": "ELSE"}}, 403, {"code": "ELSE"}),
        (500, {"error": {"code": "OFF"}}, 500, {"code": "OFF"}),
    ],
)  # fmt: skip
def test_an_answer_is_understood(status: int, theirs: object, wanted: int, ours: dict[str, object]) -> None:
    """Members, states, ids and codes are translated; a code counts only with its own status."""
    raw = Answer(status, (("sb-request-id", "r"),), json.dumps(theirs).encode(), 1.0)
    found = understood(raw, "POST", "/dlq-replay")
    assert found.status == wanted
    assert ours.items() <= found.json().items()
    assert found.header("X-Request-Id") == "r"
    assert found.received is raw


@pytest.mark.parametrize(
    ("documented", "ours"),
    [
        ("/functions/v1/replay", "/dlq-replay"),
        ("/functions/v1/replay/{id}", "/dlq-replay/{id}"),
        ("/prefix/functions/v1/replay", "/dlq-replay"),
        ("/functions/v1/replays", "/functions/v1/replays"),
        ("/version", "/version"),
    ],
)
def test_a_documented_path_has_its_name_in_the_contract(documented: str, ours: str) -> None:
    """Only whole path segments match an endpoint."""
    assert contract_path(documented) == ours


def test_a_member_has_its_real_name() -> None:
    """A drill that misspells a member starts from the deployment's name."""
    assert [real_member(name) for name in ("company_id", "dry_run")] == ["orgId", "dry_run"]


def test_what_is_no_json_is_left_alone() -> None:
    """A body that is no JSON is kept as it came."""
    assert understood(Answer(502, (), b"<html>", 1.0), "GET", "/healthz").body == b"<html>"


def test_a_token_has_the_tenant_where_the_target_looks() -> None:
    """The tenant is a nested number in the token, and is read back as the contract's claim."""
    token = mint_token(SECRET, {"sub": "s", "role": "company_admin", "company_id": "12"})
    assert claims_of(token)["app_metadata"] == {"org": 12}
    assert claims_of(token)["company_id"] == "12"


def test_a_member_is_a_user_and_no_claim() -> None:
    """With a membership table, a token names the tenant's user, and the tenant only if a claim is mapped."""
    members = {"is": "members", "company": "org", "user": "person"}
    claims = {"sub": "x", "role": "authenticated", "company_id": "12"}
    use(names_of({"members": members}))
    alone = real_claims(claims)
    assert alone == {"sub": user_of("12"), "role": "authenticated"}
    assert real_claims({**claims, "company_id": "13"}) != alone
    assert real_claims({"sub": "x"}) == {"sub": "x"}
    assert real_claims({"company_id": "12"}) == {}
    assert real_claims({**claims, "company_id": ["12"]})["sub"] == "x"
    use(names_of({"members": members, "tenant_claim": "app_metadata.org"}))
    assert real_claims(claims) == {**alone, "app_metadata": {"org": "12"}}


def test_the_key_of_every_request_is_a_secret() -> None:
    """It is redacted in evidence and in the command that repeats a request."""
    target = Target(TargetKind.STAGING, base_url="http://h")
    hide = hidden(target)
    assert redact_text(f"apikey: {KEY}", hide) == "apikey: $GATEWAY_KEY"
    assert KEY not in curl(on_the_wire(Request("GET", "/healthz")), "http://h", hide)


OWN = names_of(
    {
        "ids": {"company_id": "text"},
        "tenant_setting": "app.tenant",
        "token": {"role": "realm.roles[]", "roles": {"super_admin": "root"}},
        "http": {
            "fields": {
                "dlq_ids": "refs",
                "items": "refs",
                "status": ["outcome", "phase"],
                "max": "limit",
                "errors": "error.of",
            },
            "success": {"/dlq-replay": 202, "/events": 201},
            "metrics": {"dlq_items": "hub_parked"},
            "code_member": "error.code",
            "codes": {"agents_paused": ["HELD", 423]},
        },
    }
)


@pytest.mark.parametrize(
    ("method", "path", "theirs", "status", "ours"),
    [
        ("POST", "/dlq-replay", {"outcome": "A", "refs": ["1"]}, 202, (200, {"status": "A", "items": ["1"]})),
        ("POST", "/events", {"x": 1}, 201, (202, {"x": 1})),
        ("POST", "/events", {"x": 1}, 200, (200, {"x": 1})),
        ("GET", "/events/7", {"phase": "B"}, 200, (200, {"status": "B"})),
        ("GET", "/events/7?x=1", {"phase": "B"}, 201, (200, {"status": "B"})),
        ("GET", "/eventsource", {}, 201, (201, {})),
        (
            "GET",
            "/events/7",
            {"committed_at": 1795695958250, "effect_at": 1795695958},
            200,
            (200, {"committed_at": "2026-11-26T12:25:58.250000+00:00", "effect_at": "2026-11-26T12:25:58+00:00"}),
        ),
        (
            "POST",
            "/dlq-replay",
            {"error": {"code": "BAD", "of": [{"path": "/body/limit", "problem": "is 0"}]}},
            400,
            (400, {"errors": [{"path": "/body/limit", "problem": "is 0", "field": "max", "message": "is 0"}]}),
        ),
        (
            "POST",
            "/dlq-replay",
            {"error": {"code": "BAD", "of": [{"loc": ["body", "dlq_ids", 0], "msg": "short"}]}},
            400,
            (
                400,
                {"errors": [{"loc": ["body", "dlq_ids", 0], "msg": "short", "field": "dlq_ids", "message": "short"}]},
            ),
        ),
        *(
            (
                "POST",
                "/dlq-replay",
                {"error": {"code": "BAD", "of": [{"field": said, "message": "is short"}]}},
                400,
                (400, {"errors": [{"field": "dlq_ids", "message": "is short"}]}),
            )
            for said in ("dlq_ids.0", "dlq_ids[0]", "/dlq_ids/0")
        ),
    ],
)  # fmt: skip
def test_an_endpoint_has_its_own_success_and_members(
    method: str, path: str, theirs: object, status: int, ours: tuple[int, dict[str, object]]
) -> None:
    """Statuses, members, times and error entries are translated for each endpoint."""
    use(OWN)
    found = understood(Answer(status, (), json.dumps(theirs).encode(), 1.0), method, path)
    assert found.status == ours[0]
    assert ours[1].items() <= found.json().items()


def test_a_role_stands_where_the_target_looks() -> None:
    """The role is a translated entry of a list, and is read back; other values stay as they are."""
    use(OWN)
    token = mint_token(SECRET, {"sub": "s", "role": "super_admin"})
    assert json_object(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["realm"] == {"roles": ["root"]}
    assert claims_of(token)["role"] == "super_admin"
    for no_name in (None, 1, ["super_admin"]):
        assert claims_of(mint_token(SECRET, {"role": no_name}))["realm"] == {"roles": [no_name]}


def test_a_tenant_may_be_known_by_a_plain_setting() -> None:
    """The mapped setting holds the id; by default a setting holds all claims."""
    use(OWN)
    assert tenant_session({"company_id": "c", "sub": "s"}) == ("app.tenant", "c")
    assert tenant_session({"sub": "s"}) == ("app.tenant", "")
    use(Names())
    assert tenant_session({"sub": "s"}) == ("request.jwt.claims", '{"sub": "s"}')


def test_a_series_and_a_code_have_their_real_names() -> None:
    """Metrics and codes are looked up by the deployment's names."""
    use(OWN)
    assert parse_metrics("hub_parked 3\nother 1\n").total("dlq_items") == 3
    assert (real_code("agents_paused"), real_code("forbidden")) == ("HELD", "forbidden")


def test_an_id_may_have_a_form() -> None:
    """New and made-up ids get the form, in bodies and tokens; an id that has it stays."""
    use(names_of({"ids": {"company_id": "acc_{hex}", "event_id": "text"}}))
    made = new_id("company")
    assert re.fullmatch("acc_[0-9a-f]{32}", made)
    stranger = "6f1c2c0e-0000-4000-8000-0123456789ab"
    body = json.dumps({"company_id": stranger, "dlq_ids": [stranger]}).encode()
    sent = json.loads(on_the_wire(Request("POST", "/dlq-replay", (), body)).body)
    assert sent == {"company_id": "acc_6f1c2c0e0000400080000123456789ab", "dlq_ids": [stranger]}
    assert real_claims({"company_id": stranger})["company_id"] == sent["company_id"]
    assert json.loads(on_the_wire(Request("POST", "/x", (), json.dumps({"company_id": made}).encode())).body) == {
        "company_id": made
    }


def test_the_detail_of_a_problem_may_be_its_errors() -> None:
    """Where `detail` holds the list of errors, as FastAPI has it, it is read as both; a text there stays the detail."""
    use(Names({"http": {"fields": {"errors": "detail"}, "codes": {"invalid_request": ["bad", 422]}}}))
    listed = {"code": "bad", "status": 422, "detail": [{"loc": ["body", "max"], "msg": "too small"}]}
    found = understood(Answer(422, (), json.dumps(listed).encode(), 1.0), "POST", "/dlq-replay")
    assert (found.status, found.json()["status"], found.json()["errors"][0]["field"]) == (400, 400, "max")
    assert found.json()["detail"] == listed["detail"]
    told = understood(Answer(403, (), b'{"code": "forbidden", "detail": "not yours"}', 1.0), "POST", "/dlq-replay")
    assert told.json()["detail"] == "not yours"
    use(Names())
