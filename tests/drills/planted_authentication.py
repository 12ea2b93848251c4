"""Planted defects of authentication, and of the HTTP surface before it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace

from gates.deployment.requests import SIGNATURE, sign_v1, sign_v2
from tests.drills.defects import (
    World,
    company_of,
    excuses,
    problem,
    refuses,
    whenever,
    with_json,
)
from tests.drills.planted import Planted
from tests.drills.planted_tokens import FORGED_TOKENS
from tests.drills.proxy import Defect, Forward, Reply, Sent


def verifies(accepts: Callable[[str, str], bool]) -> Callable[[World], Defect]:
    """A signature check that accepts whatever `accepts(given, right)` says, beside the right one."""

    def make(world: World) -> Defect:
        def wanted(sent: Sent) -> bool:
            given = sent.all(SIGNATURE)
            return len(given) == 1 and accepts(given[0], sign_v1(world.target.hmac_secret, sent.body))

        return excuses(wanted)(world)

    return make


def verifies_rewritten(world: World) -> Defect:
    """A signature check that writes the body anew before it takes the MAC of it."""

    def wanted(sent: Sent) -> bool:
        try:
            rewritten = json.dumps(json.loads(sent.body), sort_keys=True, separators=(",", ":")).encode()
        except (ValueError, RecursionError):
            return False
        return sent.signature == sign_v1(world.target.hmac_secret, rewritten)

    return excuses(wanted)(world)


def reads_one_header(index: int, name: str) -> Callable[[World], Defect]:
    """Of several headers of a kind only the first (0) or last (-1) is read."""

    def make(_world: World) -> Defect:
        def defect(sent: Sent, forward: Forward) -> Reply:
            given = sent.all(name)
            return forward(sent.having(name, given[index]) if len(given) > 1 else sent)

        return defect

    return make


def ignores(name: str, beside: str) -> Callable[[World], Defect]:
    """One credential is not looked at where the other is there."""

    def make(_world: World) -> Defect:
        def defect(sent: Sent, forward: Forward) -> Reply:
            return forward(sent.without(name) if sent.header(name) and sent.header(beside) else sent)

        return defect

    return make


def locks_out(world: World) -> Defect:
    """After five refused requests nobody is let in."""
    refused = [0]

    def defect(sent: Sent, forward: Forward) -> Reply:
        if refused[0] >= 5:
            return problem(401, "unauthenticated")
        reply = forward(sent)
        refused[0] += reply.status == 401
        return reply

    return defect


def tells_what_was_wrong(_world: World) -> Defect:
    """The 401 says what was wrong."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        return with_json(reply, detail=f"bad {sent.signature[:4]}") if reply.status == 401 else reply

    return defect


def v2_flag_unread(world: World) -> Defect:
    """The flag that ends v1 is not read."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        right = sent.signature == sign_v1(world.target.hmac_secret, sent.body)
        return forward(world.as_admin(sent)) if reply.status == 401 and right else reply

    return defect


def tells_that_v1_is_over(world: World) -> Defect:
    """A right signature of the version that is switched off is told so."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        right = sent.signature == sign_v1(world.target.hmac_secret, sent.body)
        return with_json(reply, detail="version 1 is over") if reply.status == 401 and right else reply

    return defect


def _old_stamp(sent: Sent) -> bool:
    stamp = sent.signature.partition("t=")[2].partition(",")[0]
    return stamp.isdigit() and abs(int(stamp) - time.time()) > 60


def marks_the_known(world: World) -> Defect:
    """A refusal names the tenant, in a header, where there is one."""

    def defect(sent: Sent, forward: Forward) -> Reply:
        reply = forward(sent)
        known = company_of(sent) == world.target.test_company_id.lower()
        return reply.having("X-Tenant", "known") if reply.status == 401 and known else reply

    return defect


def _stamped(sent: Sent, secret: str) -> bool:
    """Whether the request is signed by v2 with this secret."""
    at = (sent.signature or "").removeprefix("t=").partition(",")[0]
    return at.isdigit() and sent.signature == sign_v2(secret, sent.body, int(at))


HTTP_SURFACE = "drill/http-surface"
AUTH = "drill/authentication"

FORGED_SIGNATURES = tuple(
    f"{AUTH}/{name}"
    for name in (
        *("empty-signature", "whitespace-signature", "wrong-secret", "known-secrets"),
        *("random-signature", "signature-of-nothing", "truncated-*", "one-digit", "last-digit-changed"),
        *(
            "extra-digits",
            "leading-digits",
            "list-of-signatures",
            "scheme-prefix",
            "upper-case-hex",
            "base64-signature",
        ),
        *("fullwidth-digits", "hex-prefix", "escaped-newline", "long-signature", "dry-run-needs*", "forced-replay*"),
        *("reordered-keys", "added-spaces", "escaped-characters", "trailing-line-end", "flipped-byte"),
        *("swapped-company", "two-signatures*", "bad-*", "every-secret*", "*-in-query", "token-in-cookie"),
        *("accepted-after-forgeries", "one-refusal", "v2-stale", "v2-very-stale", "v2-future", "v2-changed-time"),
        *("v2-wrong-secret", "v2-other-body", "v2-without-time-in-mac", "v2-truncated", "v2-extended", "v2-empty-mac"),
        *("v2-no-*", "v2-two-*", "v1-mac-under-v2-name", "v2-odd-times", "read-*"),
    )
)

AUTHENTICATION = [
    Planted(
        "credentials are not verified",
        excuses(lambda _sent: True),
        (
            *FORGED_SIGNATURES,
            *FORGED_TOKENS,
            f"{HTTP_SURFACE}/every-route-needs-credentials",
            f"{HTTP_SURFACE}/path-variants",
            "drill/safety-rails/events-need-credentials",
            "drill/proof/invalid-signature-refused",
        ),
    ),
    Planted(
        "the printed secret signs, too",
        excuses(lambda sent: sent.signature == sign_v1("your-hmac-secret", sent.body)),
        (f"{AUTH}/known-secrets",),
        (f"{AUTH}/wrong-secret",),
    ),
    Planted(
        "a secret that was not filled in signs v2",
        excuses(lambda sent: _stamped(sent, "undefined")),
        (f"{AUTH}/known-secrets",),
        (f"{AUTH}/wrong-secret",),
    ),
    Planted("nobody needs credentials", excuses(lambda _sent: True), (f"{AUTH}/signed-accepted",)),
    Planted("no token is needed", excuses(lambda _sent: True), ("drill/tokens/admin-accepted",)),
    Planted(
        "the signature of the parsed body is accepted, too",
        verifies_rewritten,
        (f"{AUTH}/canonical-forms",),
        (f"{AUTH}/wrong-secret", f"{AUTH}/flipped-byte"),
    ),
    Planted(
        "signatures are compared by prefix",
        verifies(lambda given, right: bool(given) and right.startswith(given)),
        (f"{AUTH}/truncated-by-one", f"{AUTH}/truncated-half", f"{AUTH}/one-digit"),
        (f"{AUTH}/extra-digits", f"{AUTH}/wrong-secret", f"{AUTH}/empty-signature"),
    ),
    Planted(
        "an empty signature is no signature to check",
        verifies(lambda given, _right: not given.strip()),
        (f"{AUTH}/empty-signature", f"{AUTH}/whitespace-signature"),
        (f"{AUTH}/wrong-secret", f"{AUTH}/one-digit"),
    ),
    Planted(
        "hex digits are compared without case",
        verifies(lambda given, right: given.lower() == right),
        (f"{AUTH}/upper-case-hex",),
        (f"{AUTH}/hex-prefix", f"{AUTH}/last-digit-changed"),
    ),
    Planted(
        "the first signature header counts",
        reads_one_header(0, SIGNATURE),
        (f"{AUTH}/two-signatures-good-bad",),
        (f"{AUTH}/two-signatures-bad-good",),
    ),
    Planted(
        "the last signature header counts",
        reads_one_header(-1, SIGNATURE),
        (f"{AUTH}/two-signatures-bad-good", f"{AUTH}/two-signatures-alike"),
        (f"{AUTH}/two-signatures-good-bad",),
    ),
    Planted(
        "a token is not looked at beside a signature",
        ignores("Authorization", SIGNATURE),
        (f"{AUTH}/bad-token-beside-good-signature", f"{AUTH}/token-rights-apply-when-both-are-sent"),
        (f"{AUTH}/bad-signature-beside-good-token",),
    ),
    Planted(
        "a signature is not looked at beside a token",
        ignores(SIGNATURE, "Authorization"),
        (f"{AUTH}/bad-signature-beside-good-token",),
        (f"{AUTH}/bad-token-beside-good-signature",),
    ),
    Planted(
        "signed requests are refused",
        refuses(lambda sent: bool(sent.signature)),
        (f"{AUTH}/signed-accepted", "drill/proof/valid-signature-accepted"),
    ),
    Planted(
        "tokens are refused",
        refuses(lambda sent: bool(sent.header("Authorization"))),
        ("drill/tokens/admin-accepted", "drill/proof/admin-token-accepted"),
    ),
    Planted(
        "bodies in unusual spellings are refused",
        refuses(lambda sent: sent.body[:2] in {b"{\n", b" \t"}),
        (f"{AUTH}/odd-spelling-accepted",),
        (f"{AUTH}/reordered-keys",),
    ),
    Planted(
        "v2 signatures live for a minute",
        refuses(_old_stamp),
        (f"{AUTH}/v2-past-tolerated", f"{AUTH}/v2-future-tolerated"),
    ),
    Planted("forgeries lock everybody out", locks_out, (f"{AUTH}/accepted-after-forgeries",)),
    Planted("bad tokens lock everybody out", locks_out, ("drill/tokens/accepted-after-forgeries",)),
    Planted("the refusal says what was wrong", tells_what_was_wrong, (f"{AUTH}/one-refusal",)),
    Planted("the end of v1 is told", tells_that_v1_is_over, (f"{AUTH}/v1-refused-when-v2-is-required",)),
    Planted("the refusal of a known company has a header of its own", marks_the_known, (f"{AUTH}/one-refusal",)),
    Planted("the flag that ends v1 is not read", v2_flag_unread, (f"{AUTH}/v1-refused-when-v2-is-required",)),
    Planted(
        "invalid bodies are server errors",
        whenever(400, lambda reply: replace(reply, status=500)),
        (
            f"{AUTH}/nul-in-body",
            f"{AUTH}/invalid-utf8-body",
            f"{AUTH}/utf16-body",
            f"{AUTH}/byte-order-mark",
            f"{HTTP_SURFACE}/nesting",
            f"{HTTP_SURFACE}/validation-names-the-field",
            f"{HTTP_SURFACE}/refusals-leak-nothing",
        ),
    ),
]
