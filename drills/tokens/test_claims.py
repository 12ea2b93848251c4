"""Tokens that the service's own secret signed, and that are still no good: algorithm, times, required claims."""

import json
import uuid
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from drills.workbench.bench import Bench
from drills.workbench.checks import TOKEN, Case, cases
from drills.workbench.credentials import MISSING, Minter
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.requests import mint_token
from gates.evidence import Severity, Where

drill = partial(check, needs=("mint",), after=TOKEN, where=Where.READ_ONLY)

Mint = Callable[[Minter, int], list[str]]

NO_NUMBERS: tuple[Any, ...] = ("never", "", None, [], {}, -1)

LEEWAY_S = current().limit("token_leeway_s")
DAY_S = 86_400

ALGORITHMS: list[Case] = [
    Case(
        "alg-hs384",
        "A token signed with HS384 by the right secret is refused: HS256 only.",
        lambda m, _now: [m(header={"alg": "HS384", "typ": "JWT"}, digest="sha384")],
        ("B07",),
    ),
    Case(
        "alg-hs512",
        "A token signed with HS512 by the right secret is refused: HS256 only.",
        lambda m, _now: [m(header={"alg": "HS512", "typ": "JWT"}, digest="sha512")],
        ("B07",),
    ),
    Case(
        "alg-mismatch",
        "A token signed with HS256 whose header names another algorithm is refused.",
        lambda m, _now: [m(header={"alg": a, "typ": "JWT"}) for a in ("HS512", "RS256", "none", "hs256")],
        ("B07",),
    ),
    Case(
        "alg-missing",
        "A token whose header names no algorithm is refused.",
        lambda m, _now: [m(header={"typ": "JWT"})],
        ("B07",),
    ),
    Case(
        "unknown-critical-header",
        "A token whose `crit` names an unknown header is refused; many libraries leave that to their caller.",
        lambda m, _now: [m(header={"alg": "HS256", "typ": "JWT", "crit": ["x-drill"], "x-drill": 1})],
        ("B22",),
        Severity.WARN,
    ),
    Case(
        "compressed",
        "A token with compressed claims is refused.",
        lambda m, _now: [
            mint_token(
                m.target.jwt_secret,
                zlib.compress(json.dumps(m.claims()).encode()),
                {"alg": "HS256", "typ": "JWT", "zip": "DEF"},
            )
        ],
        ("B26",),
    ),
    Case(
        "claims-no-object",
        "A signed token whose claims are no object is refused, and is no server error.",
        lambda m, _now: [
            mint_token(m.target.jwt_secret, text) for text in (b"[]", b'"x"', b"1", b"null", b"", b"{", b"\xff")
        ],
        ("B14",),
    ),
    Case(
        "claims-deeply-nested",
        "A signed token with deeply nested claims is refused, and is no server error.",
        # deeper than parsers recurse, and shorter than the 8 KB of header that proxies let through
        lambda m, _now: [mint_token(m.target.jwt_secret, b"[" * 2800 + b"]" * 2800)],
        ("B25",),
        Severity.WARN,
    ),
]

TIMES: list[Case] = [
    Case(
        "expired",
        "A token that expired 45 s ago is refused.",
        lambda m, now: [
            m(exp=now - 15 - LEEWAY_S),
            m(exp=now - 15.5 - LEEWAY_S),
            m(exp=now - 15 - LEEWAY_S, iat=now - 60 - LEEWAY_S, nbf=now - 60 - LEEWAY_S),
        ],
        ("B12",),
    ),
    Case("long-expired", "A token that expired a day ago is refused.", lambda m, now: [m(exp=now - DAY_S)], ("B12",)),
    Case("without-exp", "A token that never expires is refused.", lambda m, _now: [m(exp=MISSING)], ("B13",)),
    Case(
        "exp-no-number",
        "A token whose `exp` is no number, or negative, is refused, and is no server error.",
        lambda m, _now: [m(exp=v) for v in NO_NUMBERS],
        ("B14",),
    ),
    Case(
        "not-yet-valid",
        "A token whose `nbf` lies 55 s in the future is refused.",
        lambda m, now: [m(nbf=now + 3600), m(nbf=now + 25.5 + LEEWAY_S), m(nbf=now + 25 + LEEWAY_S, iat=now - 60)],
        ("B15",),
    ),
    Case(
        "issued-in-the-future",
        "A token whose `iat` lies 55 s in the future is refused.",
        lambda m, now: [m(iat=now + 3600), m(iat=now + 25.5 + LEEWAY_S), m(iat=now + 25 + LEEWAY_S, nbf=now - 60)],
        ("B16",),
        Severity.WARN,
    ),
]

REQUIRED: list[Case] = [
    Case("without-sub", "A token without `sub` is refused.", lambda m, _now: [m(sub=MISSING)], ("B13", "B21")),
    Case("without-role", "A token without `role` is refused.", lambda m, _now: [m(role=MISSING)], ("B21",)),
    Case(
        "role-no-string",
        "A token whose role is no string is refused with 401.",
        lambda m, _now: [m(role=v) for v in (["super_admin"], None, 1, {"super_admin": True}, True)],
        ("B23",),
    ),
]


@drill("drill/tokens/one-refusal", severity=Severity.WARN, covers=("A25",))
def test_one_refusal(bench: Bench, token: Minter) -> None:
    """A rightly signed token that is refused gets the same answer as a wrongly signed one, whatever is wrong with it.

    A thief learns which stolen token was once valid, and whose.
    """
    now = bench.clock.now()
    bench.opens(bench.with_token(token(), label="a good token"))
    wrong = {
        "signed wrongly": token()[:-4] + "AAAA",
        "expired": token(exp=now - 3600),
        "not yet valid": token(nbf=now + 3600),
        "without sub": token(sub=MISSING),
        "role no string": token(role=1),
        "HS512": token(header={"alg": "HS512", "typ": "JWT"}, digest="sha512"),
    }
    bench.one_body({n: bench.shut(bench.with_token(t, label=n)) for n, t in wrong.items()})


@cases("drill/tokens", [*ALGORITHMS, *TIMES, *REQUIRED], where=Where.READ_ONLY, needs=("mint",), after=TOKEN)
def test_refused_token(case: Case, bench: Bench, token: Minter) -> None:
    """A token that the service's secret signed is refused where its algorithm, times or claims are not as required, by
    replays, events and reads alike.

    A leaked, expired or half-made token stays a key for ever.
    """
    mint: Mint = case.value
    bench.tells_apart(token(), mint(token, bench.clock.now()), case.name)


@pytest.mark.waits(1.0)
@drill("drill/tokens/accepted-until-it-expires", covers=("B12",))
def test_accepted_until_it_expires(bench: Bench, token: Minter) -> None:
    """A token that was accepted is refused as soon as it has expired.

    A service that caches verified tokens goes on serving expired ones.
    """
    bench.outlived(LEEWAY_S, lambda at, n: [bench.with_token(token(exp=at, sub=f"drill-{n}"), label="just expired")])


@drill("drill/tokens/exp-in-odd-forms", severity=Severity.WARN, covers=("B14",))
def test_exp_in_odd_forms(bench: Bench, token: Minter) -> None:
    """A token whose times are fractions, texts or absurdly large causes no server error.

    It may be accepted or refused (RFC 7519 allows fractions), but it must not break the service.
    """
    now = bench.clock.now()
    bench.opens(bench.with_token(token(), label="a good token"))
    odd: list[dict[str, Any]] = [{"exp": exp} for exp in (now + 600.5, str(now + 600), 1e20, 10**30)]
    past = ("soon", now - 60.5, str(now - 60))
    odd += [{name: at} for name in ("nbf", "iat") for at in past]
    for claims in odd:
        bench.refused(bench.with_token(token(**claims), label=f"{claims}"), (401, 403))


LEEWAY: list[Case] = [
    Case(
        "expired-within-leeway",
        "A token that expired 12 s ago is accepted: 30 s leeway.",
        lambda m, now: m(exp=now - LEEWAY_S * 2 // 5),
    ),
    Case(
        "issued-within-leeway",
        "A token issued 12 s in the future is accepted: 30 s leeway.",
        lambda m, now: m(iat=now + LEEWAY_S * 2 // 5),
    ),
    Case(
        "valid-within-leeway",
        "A token that is valid 12 s from now is accepted: 30 s leeway.",
        lambda m, now: m(nbf=now + LEEWAY_S * 2 // 5),
    ),
    Case(
        "without-iat",
        "A token without `iat`, and without `typ` in its header, is accepted: neither is required.",
        lambda m, _now: m(iat=MISSING, header={"alg": "HS256"}),
    ),
]


@cases(
    "drill/tokens", LEEWAY, severity=Severity.WARN, where=Where.READ_ONLY, needs=("mint",), after=TOKEN, covers=("B12",)
)
def test_accepted_token(case: Case, bench: Bench, token: Minter) -> None:
    """A token within the leeway, or without what is optional, is accepted.

    Issuers whose clocks differ by seconds are locked out.
    """
    bench.opens(bench.with_token(token(), label="a good token"))
    bench.accepted(bench.with_token(case.value(token, bench.clock.now()), label=case.name))


@drill("drill/tokens/audience", covers=("B17",))
def test_audience(bench: Bench, token: Minter) -> None:
    """Where an audience is set, a token for another one, or for none, is refused; where none is set, none is required.

    Tokens that the same issuer made for other services open this one.
    """
    ours = bench.target.jwt_audience
    bench.opens(bench.with_token(token(), label="a good token"))
    if not ours:
        bench.accepted(bench.with_token(token(aud=MISSING), label="no audience, none is set"))
        return
    for aud in ("another-service", MISSING, ["another-service"], ours + "x", ours[:-1], "", None):
        bench.shut(bench.with_token(token(aud=aud), label=f"audience {aud!r}"))
    bench.accepted(bench.with_token(token(aud=["another-service", ours]), label="ours among others"))


@drill("drill/tokens/issuer", covers=("B18",))
def test_issuer(bench: Bench, token: Minter) -> None:
    """Where an issuer is set, a token of another one, or of none, is refused; where none is set, none is required.

    Another issuer that shares the secret makes administrators here.
    """
    ours = bench.target.jwt_issuer
    bench.opens(bench.with_token(token(), label="a good token"))
    if not ours:
        bench.accepted(bench.with_token(token(iss=MISSING), label="no issuer, none is set"))
        return
    for iss in ("https://another.example", MISSING, ours + "/", ours.swapcase(), "", None, [ours]):
        bench.shut(bench.with_token(token(iss=iss), label=f"issuer {iss!r}"))


@drill("drill/tokens/unset-audience-not-checked", severity=Severity.WARN, covers=("B17", "B18"))
def test_unset_not_checked(bench: Bench, token: Minter) -> None:
    """A token that carries more than is required is accepted: audience and issuer are checked only where they are set,
    other claims never; a token of ten minutes ago is as good as one of now.

    The tokens of common identity providers, which always carry these, open nothing.
    """
    bench.opens(bench.with_token(token(), label="a good token"))
    extra: dict[str, Any] = {} if bench.target.jwt_audience else {"aud": "authenticated"}
    extra |= {} if bench.target.jwt_issuer else {"iss": "https://issuer.example"}
    bench.accepted(bench.with_token(token(**extra, jti=uuid.uuid4().hex), label="with audience and issuer"))
    before = bench.clock.now() - 600  # an age that is limited to hours is the deployment's affair
    bench.accepted(bench.with_token(token(iat=before, nbf=before), label="issued ten minutes ago"))
    provided = token(sub="auth0|65f0c3", email="a@drill.example", amr=[{"method": "otp"}])
    bench.accepted(bench.with_token(provided, label="with a provider's sub and other claims"))
