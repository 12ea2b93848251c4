"""Tokens: HS256 by the service's own secret, with `exp`, `sub` and `role`; nothing else opens the door."""

import base64
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from drills.workbench.bench import Bench
from drills.workbench.checks import TOKEN, Case, cases
from drills.workbench.scene import best_of
from gates.checks.recorder import check
from gates.deployment.http.client import NoAnswer
from gates.deployment.requests import encode_segment, mint_token, post, raw_token
from gates.evidence import Severity, Where

drill = partial(check, after=TOKEN, where=Where.READ_ONLY)

ACCEPTED = "drill/tokens/admin-accepted"

Claims = Mapping[str, Any]


@check(ACCEPTED, where=Where.READ_ONLY, covers=("B01",), phase="first")
def test_admin_accepted(bench: Bench) -> None:
    """The admin token is authenticated, and the same request without it is not.

    No operator can act, and no check of tokens proves anything.
    """
    token = bench.admin()
    bench.seen.control("the twin without a token is sent as well")
    bench.shut(post("/dlq-replay", bench.body(), label="no credentials"))
    bench.accepted(bench.with_token(token, label="admin token"))


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Header, claims and signature of a token."""
    header, claims, signature = (base64.urlsafe_b64decode(p + "=" * (-len(p) % 4)) for p in token.split("."))
    return json.loads(header), json.loads(claims), signature


def shut_out(bench: Bench, token: str, label: str, answers: int | tuple[int, ...] = 401) -> None:
    """The admin token opens the door, this one does not."""
    bench.opens(bench.with_token(bench.admin(), label="admin token"))
    bench.refused(bench.with_token(token, label=label), answers)


# --- forged without the secret, from the claims of the admin token ------------------------------------------------


def _unsigned(*names: str, signature: bytes) -> Callable[[Claims, bytes], list[str]]:
    return lambda claims, _own: [raw_token({"alg": a, "typ": "JWT"}, claims, signature) for a in names]


def _with_header(secret: str = "", **header: Any) -> Callable[[Claims, bytes], list[str]]:
    return lambda claims, _own: [mint_token(secret, claims, {"alg": "HS256", "typ": "JWT", **header})]


def _embedded_key(claims: Claims, _own: bytes) -> list[str]:
    secret = "an-embedded-secret-of-32-characters"
    key = {"kty": "oct", "k": encode_segment(secret.encode()), "alg": "HS256"}
    return [mint_token(secret, claims, {"alg": "HS256", "typ": "JWT", "jwk": key})]


def _nested(claims: Claims, _own: bytes) -> list[str]:
    inner = raw_token({"alg": "none"}, claims, b"")
    return [mint_token("", inner.encode(), {"alg": "HS256", "typ": "JWT", "cty": "JWT"})]


NONE = ("none", "None", "NONE", "nOnE")

FORGED: list[Case] = [
    Case(
        "alg-none",
        "A token of algorithm `none`, in any spelling, is refused.",
        _unsigned(*NONE, signature=b""),
        ("B02",),
    ),
    Case(
        "alg-none-with-signature",
        "A token of algorithm `none` with some signature is refused.",
        _unsigned(*NONE, signature=b"\x01" * 32),
        ("B02",),
    ),
    Case("empty-signature", "A token with an empty signature is refused.", _unsigned("HS256", signature=b""), ("B03",)),
    Case(
        "two-parts",
        "A token without its third part is refused.",
        lambda claims, _own: [raw_token({"alg": a, "typ": "JWT"}, claims, None) for a in ("HS256", "none")],
        ("B03",),
    ),
    Case(
        "random-signature",
        "A token with bytes that are no signature of it is refused, as many, fewer or more than one has.",
        lambda claims, _own: [raw_token({"alg": "HS256", "typ": "JWT"}, claims, bytes(range(n))) for n in (32, 31, 33)],
        ("B02",),
    ),
    Case(
        "changed-claims",
        "The admin token with one claim changed and its old signature is refused.",
        lambda claims, own: [raw_token({"alg": "HS256", "typ": "JWT"}, {**claims, "sub": "somebody-else"}, own)],
        ("B02",),
    ),
    Case(
        "alg-asymmetric",
        "A token whose header names an asymmetric algorithm is refused, whatever its signature.",
        lambda claims, own: [
            raw_token({"alg": a, "typ": "JWT"}, claims, own) for a in ("RS256", "PS256", "ES256", "EdDSA")
        ],
        ("B04", "B07"),
    ),
    Case(
        "psychic-signature",
        "An ES256 token whose signature is all zeros is refused.",
        _unsigned("ES256", signature=bytes(64)),
        ("B08",),
    ),
    Case(
        "alg-unknown", "A token of an unknown algorithm is refused.", _unsigned("XX1", "", signature=b"\x01"), ("B07",)
    ),
    Case(
        "kid-empty-file",
        "A token whose `kid` names an empty file, signed with the empty key, is refused.",
        lambda claims, _own: [
            mint_token("", claims, {"alg": "HS256", "typ": "JWT", "kid": kid})
            for kid in ("/dev/null", "../../../../dev/null", "")
        ],
        ("B09",),
    ),
    Case(
        "kid-sql",
        "A token whose `kid` selects its own key by SQL is refused.",
        _with_header("1", kid="x' UNION SELECT '1'--"),
        ("B09",),
    ),
    Case("embedded-key", "A token signed with a key in its own header is refused.", _embedded_key, ("B10",)),
    Case(
        "encrypted-form",
        "A token in five parts is refused.",
        lambda _c, _own: [f"{encode_segment(b'{}')}.e30.e30.e30.e30", "e30.e30.e30.e30.e30"],
        ("B26",),
    ),
    Case("nested-token", "A token inside a token is refused.", _nested, ("B26",)),
    Case(
        "no-token",
        "Text that is no token is refused, and is no server error.",
        lambda _c, _own: ["abc", "a.b.c", "..", ".", "null", "e30.e30.e30", "%%%.%%%.%%%", "eyJ.eyJ.", "a.b.c.d"],
        ("B03",),
    ),
]


@cases("drill/tokens", FORGED, where=Where.READ_ONLY, after=TOKEN)
def test_forged_token(case: Case, bench: Bench) -> None:
    """A token that the service's secret did not sign is refused with 401, by replays, events and reads alike.

    Anyone can become an administrator of every tenant.
    """
    _, claims, own = parts(bench.admin())
    bench.tells_apart(bench.admin(), case.value(claims, own), case.name)


@drill("drill/tokens/kid-of-8-kilobytes", severity=Severity.WARN, covers=("B09",))
def test_long_kid(bench: Bench) -> None:
    """A token with a `kid` of 8 KB is refused and is no server error.

    One header makes the service fail.
    """
    _, claims, _ = parts(bench.admin())
    token = mint_token("", claims, {"alg": "HS256", "typ": "JWT", "kid": "k" * 8192})
    shut_out(bench, token, "a kid of 8 KB", (400, 401, 413, 431))


QUERIES = ("x'; select pg_sleep(5)--", "x' or (select 1 from pg_sleep(5)) is null--", "x;waitfor delay '0:0:5'--")
SLOWER_MS = 4000


@drill("drill/tokens/kid-runs-nothing", covers=("B09",))
def test_kid_runs_nothing(bench: Bench) -> None:
    """A token whose `kid` would make a database wait is refused as fast as any other.

    The header of an untrusted token is used in a query: SQL injection.
    """
    _, claims, own = parts(bench.admin())
    bench.opens(bench.with_token(bench.admin(), label="admin token"))
    plain = bench.with_token(raw_token({"alg": "HS256", "typ": "JWT", "kid": "x"}, claims, own), label="a plain kid")
    usual_ms = bench.shut(plain).elapsed_ms
    for kid in QUERIES:
        forged = bench.with_token(
            raw_token({"alg": "HS256", "typ": "JWT", "kid": kid}, claims, own), label=f"kid {kid}"
        )
        since = time.monotonic()
        taken_ms = best_of(2, lambda f=forged: bench.shut(f).elapsed_ms, usual_ms + SLOWER_MS)  # type: ignore[misc]
        bench.seen.quick(f"refused (a plain kid: {usual_ms:.0f} ms)", taken_ms, usual_ms + SLOWER_MS, since)


@drill("drill/tokens/token-of-48-kilobytes", severity=Severity.WARN, covers=("B25",))
def test_long_token(bench: Bench) -> None:
    """A token of 48 KB is refused within a second of the time that any token takes (the best of three), without a
    server error.

    One header costs the service seconds, or makes it fail.
    """
    usual_ms = bench.opens(bench.with_token(bench.admin(), label="admin token")).elapsed_ms
    since = time.monotonic()
    try:
        long = bench.with_token(mint_token("", {"sub": "x" * 36_000}), label="a token of 48 KB")
        answers = [bench.http.send(long) for _ in range(3)]
    except NoAnswer:  # many servers close the connection on a header over 8 or 16 KB while it is still being sent
        bench.opens(bench.with_token(bench.admin(), label="admin token, after the long one"))
        since = time.monotonic()
        long = bench.with_token(mint_token("", {"sub": "x" * 4_500}), label="a token of 6 KB")
        answers = [bench.http.send(long) for _ in range(3)]
    for answer in answers:
        bench.seen.expect(long, answer, (400, 401, 413, 431))
    taken_ms = [a.elapsed_ms for a in answers]
    bench.seen.quick(f"refused (a short one: {usual_ms:.0f} ms)", taken_ms, usual_ms + 1000, since)


@drill("drill/tokens/hmac-secret-signs-no-token", covers=("B04",))
def test_hmac_secret_signs_no_token(bench: Bench) -> None:
    """A token signed with the secret of signed requests is refused: the two secrets differ.

    Every system that can sign a request can become an administrator.
    """
    _, claims, _ = parts(bench.admin())
    bench.seen.require(bench.target.hmac_secrets, "TRANSBOT_HMAC_SECRET is not set")
    bench.opens(bench.with_token(bench.admin(), label="admin token"))
    for secret in bench.target.hmac_secrets:
        bench.shut(bench.with_token(mint_token(secret, claims), label="signed with the request secret"))


# --- the header ---------------------------------------------------------------------------------------------------

TWO_HEADERS = [
    Case("two-tokens-good-bad", "Two Authorization headers, the valid one first, are refused.", (True, False)),
    Case("two-tokens-bad-good", "Two Authorization headers, the valid one last, are refused.", (False, True)),
    Case("two-tokens-alike", "The valid token in two headers is refused.", (True, True), severity=Severity.WARN),
]


@cases("drill/tokens", TWO_HEADERS, where=Where.READ_ONLY, after=TOKEN, covers=("B24",))
def test_two_tokens(case: Case, bench: Bench) -> None:
    """Two Authorization headers are refused, whichever of them is valid, by replays, events and reads alike.

    A proxy checks one token and the service obeys the other.
    """
    good = bench.admin()
    first, second = (f"Bearer {good if valid else raw_token({'alg': 'none'}, {}, b'')}" for valid in case.value)
    for request in bench.everywhere(good, case.name):
        bench.opens(request)
        bench.refused(request.with_header("Authorization", first).adding_header("Authorization", second), (400, 401))


@drill("drill/tokens/scheme-spelling", covers=("B24",))
def test_scheme_spelling(bench: Bench) -> None:
    """However the scheme is spelt, a forged token is refused and nothing breaks.

    `bearer` or two spaces lead around the check. A valid token may be accepted or refused in such a spelling.
    """
    _, claims, own = parts(bench.admin())
    good, other = bench.admin(), {**claims, "sub": f"not {claims.get('sub')}"}
    forged = raw_token({"alg": "HS256", "typ": "JWT"}, other, own)
    plain = bench.opens(bench.with_token(good, label="admin token"))
    for scheme in ("bearer ", "BEARER ", "Bearer  ", "Bearer\t"):
        bench.shut(post("/dlq-replay", bench.body(), ("Authorization", scheme + forged), label=f"{scheme!r} forged"))
        valid = post("/dlq-replay", bench.body(), ("Authorization", scheme + good), label=f"{scheme!r} valid")
        bench.refused(valid, (400, 401, 403, plain.status))


@drill("drill/tokens/other-scheme", severity=Severity.WARN, covers=("B24",))
def test_other_scheme(bench: Bench) -> None:
    """A valid token under another scheme, or under none, is refused; so is one beside a header of another scheme, and a
    token with a letter beyond ASCII.

    The scheme is not looked at, and credentials of another kind are read as tokens, or as nothing.
    """
    good = bench.admin()
    bench.opens(bench.with_token(good, label="admin token"))
    for scheme in ("Basic ", "Token ", "JWT ", ""):
        bench.shut(post("/dlq-replay", bench.body(), ("Authorization", scheme + good), label=f"scheme {scheme!r}"))
    for values in (("Basic eDp5", f"Bearer {good}"), (f"Bearer {good}", "Basic eDp5")):
        twice = post("/dlq-replay", bench.body(), *(("Authorization", v) for v in values), label="two schemes")
        bench.refused(twice, (400, 401))
    bench.refused(bench.with_token("t\u00f6ken", label="a token with a letter beyond ASCII"), (400, 401))


@drill("drill/tokens/accepted-after-forgeries", phase="first", covers=("B01",))
def test_accepted_after_forgeries(bench: Bench) -> None:
    """The admin token is accepted before, between and after forged ones.

    Anyone locks the operators out by sending rubbish.
    """
    good = bench.with_token(bench.admin(), label="admin token")
    bench.opens(good.labelled("before"))
    tokens = [raw_token({"alg": "none"}, {"sub": str(index)}, b"") for index in range(10)]
    forged = [bench.with_token(token, label="forged") for token in tokens]
    bench.shut_all(forged[:5])
    bench.accepted(good.labelled("between"))
    bench.shut_all(forged[5:])
    bench.accepted(good.labelled("after"))
