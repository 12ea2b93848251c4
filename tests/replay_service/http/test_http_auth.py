"""Step 2: signatures and tokens, on raw bytes, with one 401 for everything that is wrong."""

import base64
import hashlib
import hmac
import http.client
import json
import time
import uuid
from typing import Any

import httpx
import pytest

from tests.replay_service.http.service_process import (
    BASE_PATH,
    HMAC_SECRET,
    JWT_SECRET,
    OLD_HMAC_SECRET,
    Db,
    Service,
    audit,
    encode,
    forget_limit,
    post,
    sign,
    sign_v2,
    token,
    value,
)


def segment(data: Any) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forge(claims: Any, header: Any = None, secret: str = JWT_SECRET, digest: str = "sha256") -> str:
    unsigned = f"{segment(header or {'alg': 'HS256', 'typ': 'JWT'})}.{segment(claims)}"
    return f"{unsigned}.{segment(hmac.new(secret.encode(), unsigned.encode(), digest).digest())}"


def good_claims(**claims: Any) -> dict[str, Any]:
    values = {"sub": "a", "role": "super_admin", "exp": int(time.time()) + 600} | claims
    return {k: v for k, v in values.items() if v != "absent"}


def by_token(http: httpx.Client, company: str, text: str, **headers: str) -> httpx.Response:
    sent = {"x_transbot_signature": "", "authorization": f"Bearer {text}"} | headers
    return post(http, {"company_id": company, "dry_run": True}, **sent)


def test_valid_credentials_are_accepted(http: httpx.Client, db: Db, company: str) -> None:
    """v1, v2, the older secret of a rotation, both token roles and both kinds together are let in."""
    body = encode({"company_id": company, "dry_run": True})
    own = token("company_admin", company_id=company.upper())
    for headers in (
        {"x_transbot_signature": sign(body)},
        {"x_transbot_signature": sign(body, OLD_HMAC_SECRET)},
        {"x_transbot_signature": sign_v2(body)},
        {"x_transbot_signature": sign_v2(body, int(time.time()) - 297)},
        {"x_transbot_signature": sign_v2(body, int(time.time()) + 297)},
        {"x_transbot_signature": "", "authorization": f"Bearer {token()}"},
        {"x_transbot_signature": "", "authorization": f"bearer {own}"},
        {"x_transbot_signature": sign(body), "authorization": f"Bearer {own}"},
    ):
        forget_limit(db, company)
        assert post(http, body, **headers).status_code == 200, headers


MAC = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "make",
    [
        lambda _: "",
        lambda b: sign(b, "another-secret-0123456789"),
        lambda b: sign(b)[:-1],
        lambda b: sign(b)[:32],
        lambda b: sign(b) + "0",
        lambda b: sign(b).upper(),
        lambda b: "0x" + sign(b),
        lambda b: "sha256=" + sign(b),
        lambda b: base64.b64encode(hmac.new(HMAC_SECRET.encode(), b, hashlib.sha256).digest()).decode(),
        lambda b: sign(b + b" "),
        lambda b: sign_v2(b, int(time.time()) - 303),
        lambda b: sign_v2(b, int(time.time()) + 303),
        lambda b: sign_v2(b).replace("t=1", "t=01"),
        lambda b: f"t={int(time.time())},v2={sign(b)}",
        lambda b: f"t={int(time.time())},v1={sign(b)}",
        lambda b: sign_v2(b) + ",v2=" + MAC,
        lambda _: f"t=,v2={MAC}",
        lambda _: f"t={'9' * 40},v2={MAC}",
        lambda b: sign_v2(b).replace("t=", "t=+"),
    ],
)
def test_bad_signatures_are_refused(http: httpx.Client, company: str, make: Any) -> None:
    """Whatever is wrong with a signature, the answer is the same 401."""
    body = encode({"company_id": company})
    header = make(body)
    sent = {"content-type": "application/json", "x-transbot-signature": header}
    answer = http.post("/dlq-replay", content=body, headers=sent)
    assert answer.status_code == 401, header
    assert (
        answer.content == http.post("/dlq-replay", content=body, headers={"content-type": "application/json"}).content
    )
    assert answer.headers["www-authenticate"] == "Bearer"


def test_hostile_header_bytes_are_refused(service: Service, company: str) -> None:
    """Bytes beyond ASCII, line feeds in folded form and full-width digits are 401, never 500."""
    body = encode({"company_id": company})
    for name, bad in (
        ("X-Transbot-Signature", b"\xff" * 64),
        ("X-Transbot-Signature", "０".encode() * 64),
        ("Authorization", b"Bearer \xff\xfe"),
        ("Authorization", "Bearer ü.ü.ü".encode()),
        ("Authorization", b"Bearer"),
        ("Authorization", b"Basic YTpi"),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=5)
        connection.putrequest("POST", f"{BASE_PATH}/dlq-replay")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(body)))
        connection.putheader(name, bad)
        connection.endheaders(body)
        assert connection.getresponse().status == 401, bad
        connection.close()


def test_two_headers_of_a_kind_are_refused(http: httpx.Client, company: str) -> None:
    """A second signature or Authorization header is 401, in whatever order the good one comes."""
    body = encode({"company_id": company})
    good, bad = ("x-transbot-signature", sign(body)), ("x-transbot-signature", MAC)
    one, two = ("authorization", f"Bearer {token()}"), ("authorization", "Bearer x")
    for headers in ([good, bad], [bad, good], [good, good], [one, two], [two, one], [one, one]):
        answer = http.post("/dlq-replay", content=body, headers=[("content-type", "application/json"), *headers])
        assert answer.status_code == 401, headers


def test_both_kinds_must_be_valid(http: httpx.Client, company: str) -> None:
    """A valid credential does not cover an invalid one of the other kind."""
    body = encode({"company_id": company})
    for signature, bearer in (
        (sign(body), "Bearer x"),
        (sign(body), "Basic eA=="),
        (MAC, f"Bearer {token()}"),
        (sign(body), "Bearer  " + token()),
    ):
        assert post(http, body, x_transbot_signature=signature, authorization=bearer).status_code == 401


NOW = int(time.time())

CLAIMS: dict[int, dict[str, list[Any]]] = {
    200: {"exp": [NOW - 20], "nbf": [NOW + 20], "iat": [NOW], "aud": ["whoever"], "iss": ["whoever"]},
    401: {
        "exp": [NOW - 40, "absent", str(NOW + 600), NOW + 600.5, True, None, -1, 1e20, 10**30, [NOW + 600]],
        "nbf": [NOW + 900, "x"],
        "iat": [NOW + 900, True],
        "sub": ["absent", "", 7, "a\x00b"],
        "role": ["absent", ["super_admin"], None],
    },
    403: {"role": ["service_role", "Super_Admin", "company_admin"]},
}
OF_NO_COMPANY = [{"role": "company_admin", "company_id": of} for of in ("", None, ["x"], str(uuid.uuid4()))]


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({}, 200),
        *(({n: one}, status) for status, claims in CLAIMS.items() for n, values in claims.items() for one in values),
        *((claims, 403) for claims in OF_NO_COMPANY),
    ],
)
def test_claims_are_judged_strictly(
    http: httpx.Client, db: Db, company: str, claims: dict[str, Any], status: int
) -> None:
    """Missing, mistyped or untimely claims are 401, a role without rights is 403."""
    before = time.time()
    late = int(before) - NOW  # the table is as old as the collection of the suite
    timely = {k: v + late if type(v) is int and abs(v - NOW) < 1000 else v for k, v in claims.items()}
    answer = by_token(http, company, forge(good_claims(**timely)))
    assert time.time() - before < 5
    assert answer.status_code == status, answer.text


def test_forged_tokens_are_refused(http: httpx.Client, company: str) -> None:
    """Another algorithm, secret, form or header extension is 401; junk in `kid` changes nothing."""
    claims = good_claims()
    good = forge(claims)
    head, body, mac = good.split(".")
    nested: Any = {}
    for _ in range(100):
        nested = {"a": nested}
    for bad in (
        f"{segment({'alg': 'none'})}.{body}.",
        f"{segment({'alg': 'None'})}.{body}.{mac}",
        f"{head}.{body}.",
        f"{head}.{body}",
        f"{good}.x",
        f"{good}=",
        good[:-1] + ("B" if good[-1] == "A" else "A"),
        good[:-1] + chr(ord(good[-1]) + 1) if good[-1] not in "Zz9-_" else good + "A",
        forge(claims, secret=""),
        forge(claims, secret=HMAC_SECRET),
        forge(claims, {"alg": "HS512"}, digest="sha512"),
        forge(claims, {"alg": "hs256"}),
        forge(claims, {"alg": ["HS256"]}),
        forge(claims, {"alg": "HS256", "crit": ["exp"]}),
        forge(claims, {"alg": "HS256", "zip": "DEF"}),
        forge(claims, {"alg": "HS256", "typ": "refresh"}),
        forge(claims, {"alg": "HS256", "typ": 1}),
        forge(claims, {"alg": "HS256", "kid": 5}),
        forge(b'{"sub":"a","role":"super_admin","role":"viewer","exp":99999999999}'),
        forge(b'{"sub":"a","role":"super_admin","exp":NaN}'),
        forge(b"[]"),
        forge(b"\xff"),
        forge(good_claims(deep=nested)),
        forge(good_claims(pad="x" * 65536)),
    ):
        assert by_token(http, company, bad).status_code == 401, bad[:200]
    for header in ({"kid": "../../dev/null"}, {"kid": "' UNION SELECT '1'--"}, {"typ": "at+jwt"}, {"jku": "http://x/"}):
        answer = by_token(http, company, forge(good_claims(role="viewer"), {"alg": "HS256", **header}))
        assert answer.status_code == 403, header


def test_credentials_in_the_query_are_ignored(http: httpx.Client, company: str) -> None:
    """A token in the URL is no credential."""
    answer = post(http, {"company_id": company}, f"/dlq-replay?access_token={token()}", x_transbot_signature="")
    assert answer.status_code == 401


def test_v1_is_refused_while_v2_is_required(http: httpx.Client, db: Db, company: str) -> None:
    """The global flag counts from the next request on, and the refusal is the ordinary 401."""
    body = encode({"company_id": company, "dry_run": True})
    db.execute("INSERT INTO feature_flags (key, enabled) VALUES ('security.signing_v2_required', true)")
    try:
        refused = post(http, body)
        assert refused.status_code == 401
        assert post(http, body, x_transbot_signature=sign_v2(body)).status_code == 200
    finally:
        db.execute("DELETE FROM feature_flags WHERE key = 'security.signing_v2_required'")
    assert post(http, body).status_code == 200
    assert refused.content == post(http, body, x_transbot_signature="").content


def test_unauthenticated_requests_count_against_nobody(http: httpx.Client, db: Db, company: str) -> None:
    """A 401 leaves no hit, no audit row, and comes before validation and before 429."""
    for _ in range(5):
        assert post(http, {"company_id": company}, x_transbot_signature=MAC).status_code == 401
    assert post(http, b"{", x_transbot_signature=MAC).status_code == 401
    assert value(db, "SELECT count(*) FROM edge_rate_limits WHERE key LIKE %s", f"replay:{company}:%") == 0
    assert audit(db, company) == []


def test_a_resent_v2_request_is_a_duplicate(http: httpx.Client, db: Db, company: str) -> None:
    """Without a key the key is made of the MAC, so that a captured request has one effect."""
    body = encode({"company_id": company})
    signature = sign_v2(body)
    first = post(http, body, x_transbot_signature=signature)
    assert first.json()["idempotency_key"] == "sig-" + signature.rpartition("=")[2][:32]
    assert post(http, body, x_transbot_signature=signature).json()["duplicate"] is True
    assert post(http, body).json()["duplicate"] is False


def test_the_actor_is_what_was_verified(http: httpx.Client, db: Db, company: str) -> None:
    """The audit names the token's subject or the signature, whatever headers say."""
    by_token(http, company, token(sub="alice"), x_actor="mallory")
    post(http, {"company_id": company, "dry_run": True})
    rows = db.execute("SELECT actor FROM audit_logs WHERE scope = %s ORDER BY id", [company]).fetchall()
    assert rows == [("jwt:alice",), ("signature",)]
