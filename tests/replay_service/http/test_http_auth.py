"""Step 2: tokens and odd bytes, with one 401 for everything that is wrong. What the drills show of it is not here."""

import base64
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
    JWT_SECRET,
    OLD_HMAC_SECRET,
    Db,
    Service,
    encode,
    forget_limit,
    post,
    sign,
    sign_v2,
    token,
)


def segment(data: Any) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forge(claims: Any, header: Any = None) -> str:
    unsigned = f"{segment(header or {'alg': 'HS256', 'typ': 'JWT'})}.{segment(claims)}"
    return f"{unsigned}.{segment(hmac.new(JWT_SECRET.encode(), unsigned.encode(), 'sha256').digest())}"


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
    """Another spelling of the algorithm, form or type is 401; junk in `kid` changes nothing."""
    claims = good_claims()
    good = forge(claims)
    for bad in (
        f"{good}.x",
        f"{good}=",
        good[:-1] + ("B" if good[-1] == "A" else "A"),
        good[:-1] + chr(ord(good[-1]) + 1) if good[-1] not in "Zz9-_" else good + "A",
        forge(claims, {"alg": "hs256"}),
        forge(claims, {"alg": ["HS256"]}),
        forge(claims, {"alg": "HS256", "typ": "refresh"}),
        forge(claims, {"alg": "HS256", "typ": 1}),
        forge(claims, {"alg": "HS256", "kid": 5}),
        forge(b'{"sub":"a","role":"super_admin","role":"viewer","exp":99999999999}'),
        forge(b'{"sub":"a","role":"super_admin","exp":NaN}'),
        forge(b"\xff"),
    ):
        assert by_token(http, company, bad).status_code == 401, bad[:200]
    for header in ({"kid": "../../dev/null"}, {"kid": "' UNION SELECT '1'--"}, {"typ": "at+jwt"}, {"jku": "http://x/"}):
        answer = by_token(http, company, forge(good_claims(role="viewer"), {"alg": "HS256", **header}))
        assert answer.status_code == 403, header


def test_the_actor_is_what_was_verified(http: httpx.Client, db: Db, company: str) -> None:
    """The audit names the token's subject or the signature, whatever headers say."""
    by_token(http, company, token(sub="alice"), x_actor="mallory")
    post(http, {"company_id": company, "dry_run": True})
    rows = db.execute("SELECT actor FROM audit_logs WHERE scope = %s ORDER BY id", [company]).fetchall()
    assert rows == [("jwt:alice",), ("signature",)]
