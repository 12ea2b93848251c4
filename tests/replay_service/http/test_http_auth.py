"""Step 2: tokens and odd bytes, with one 401 for everything that is wrong. What the drills show of it is not here."""

import base64
import hmac
import http.client
import json
import time
from typing import Any

import httpx
import pytest

from tests.replay_service.http.service_process import BASE_PATH, JWT_SECRET, Service, encode, post, token


def segment(data: Any) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forge(claims: Any, header: Any = None) -> str:
    unsigned = f"{segment(header or {'alg': 'HS256', 'typ': 'JWT'})}.{segment(claims)}"
    return f"{unsigned}.{segment(hmac.new(JWT_SECRET.encode(), unsigned.encode(), 'sha256').digest())}"


def good_claims(**claims: Any) -> dict[str, Any]:
    return {"sub": "a", "role": "super_admin", "exp": int(time.time()) + 600} | claims


def by_token(http: httpx.Client, company: str, text: str, **headers: str) -> httpx.Response:
    sent = {"x_transbot_signature": "", "authorization": f"Bearer {text}"} | headers
    return post(http, {"company_id": company, "dry_run": True}, **sent)


def test_spellings_of_a_right_token_are_accepted(http: httpx.Client, company: str) -> None:
    """The scheme in lower case, and a company in upper case."""
    own = token("company_admin", company_id=company.upper())
    assert by_token(http, company, "", authorization=f"bearer {own}").status_code == 200


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


ODD_CLAIMS: dict[str, list[Any]] = {
    "exp": [True, 1e20, 10**30, ["600"]],
    "nbf": ["x"],
    "iat": [True],
    "sub": ["", 7, "a\x00b"],
}


@pytest.mark.parametrize("claims", [{name: value} for name, values in ODD_CLAIMS.items() for value in values])
def test_claims_of_a_wrong_form_are_refused(http: httpx.Client, company: str, claims: dict[str, Any]) -> None:
    """Whatever a library would make of them, they are 401, and cost no time."""
    before = time.time()
    assert by_token(http, company, forge(good_claims(**claims))).status_code == 401
    assert time.time() - before < 5


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
