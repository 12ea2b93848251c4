"""Faults of signatures and of what goes with them, made by a proxy."""

from dataclasses import replace

from faults.catalogue import proxy
from faults.proxy.rewriting import (
    Make,
    World,
    acts,
    company_of,
    excuses,
    problem,
    refuses,
    rereads,
    whenever,
    with_json,
)
from faults.proxy.server import Defect, Forward, Reply, Sent

AUTH = "drill/authentication"
SENT_AGAIN = ("drill/idempotency/other-credentials-same-key", "drill/outbox/sent-again-and-again")
SURFACE = "drill/http-surface"
TOKENS = "drill/tokens"


def opens_with_a_slash(method: str) -> Make:
    """A second route, with a slash at its end, that skips authentication."""

    def reread(world: World, sent: Sent) -> Sent:
        path = sent.path.rstrip("/")
        is_second = sent.method == method and path != sent.path and path.startswith(("/dlq-replay/", "/events"))
        return world.as_admin(replace(sent, path=path)) if is_second else sent

    return rereads(reread)


def locks_out(_world: World) -> Defect:
    """After five refused requests nobody is let in."""
    refused = [0]

    def defect(sent: Sent, forward: Forward) -> Reply:
        if refused[0] >= 5:
            return problem(401, "unauthenticated")
        reply = forward(sent)
        refused[0] += reply.status == 401
        return reply

    return defect


@acts
def tells_that_v1_is_over(world: World, sent: Sent, forward: Forward) -> Reply:
    """The refusal of a valid v1 signature says that v1 is switched off."""
    reply = forward(sent)
    told = reply.status == 401 and world.is_signed(sent)
    return with_json(reply, detail="version 1 is over") if told else reply


@acts
def marks_the_known(world: World, sent: Sent, forward: Forward) -> Reply:
    """A refusal names the tenant, in a header, where there is one."""
    reply = forward(sent)
    known = company_of(sent) == world.environ["TEST_COMPANY_ID"].lower()
    return reply.having("X-Tenant", "known") if reply.status == 401 and known else reply


def stamped(world: World, sent: Sent, secret: str) -> bool:
    """Whether the request is signed by v2 with this secret."""
    at = sent.signature.removeprefix("t=").partition(",")[0]
    message = at.encode() + b"." + sent.body
    return at.isdigit() and sent.signature == f"t={at},v2={world.sign(message, secret)}"


SIGNATURES = (
    *("empty-signature", "whitespace-signature", "wrong-secret", "known-secrets", "random-signature"),
    *("signature-of-nothing", "truncated-*", "one-digit", "last-digit-changed", "extra-digits", "leading-digits"),
    *("list-of-signatures", "scheme-prefix", "upper-case-hex", "base64-signature", "fullwidth-digits", "hex-prefix"),
    *("escaped-newline", "long-signature", "dry-run-needs*", "forced-replay*", "reordered-keys", "added-spaces"),
    *("escaped-characters", "trailing-line-end", "flipped-byte", "swapped-company", "two-signatures*", "bad-*"),
    *("every-secret*", "*-in-query", "token-in-cookie", "accepted-after-forgeries", "one-refusal", "v2-stale"),
    *("v2-very-stale", "v2-future", "v2-changed-time", "v2-wrong-secret", "v2-other-body", "v2-without-time-in-mac"),
    *(
        "v2-truncated",
        "v2-extended",
        "v2-empty-mac",
        "v2-no-*",
        "v2-two-*",
        "v1-mac-under-v2-name",
        "v2-odd-times",
        "v2-in-*",
    ),
    "read-*",
)
FORGED = (
    *("alg-*", "empty-signature", "two-parts", "random-signature", "changed-claims", "common-secrets"),
    *("psychic-signature", "kid-*", "embedded-key", "encrypted-form", "nested-token", "no-token", "hmac-secret*"),
    *("token-of-48-kilobytes", "two-tokens*", "scheme-spelling", "other-scheme", "accepted-after-forgeries"),
    *("unknown-critical-header", "compressed", "claims-*", "expired", "long-expired", "without-exp", "exp-no-number"),
    *("not-yet-valid", "issued-in-the-future", "without-sub", "without-role", "role-no-string"),
)


def good_once(_world: World) -> Defect:
    """The v2 signatures of requests that name a key or an event are remembered, and refused the next time."""
    used = set[str]()

    def defect(sent: Sent, forward: Forward) -> Reply:
        signature = sent.header("X-Transbot-Signature") or ""
        if not signature.startswith("t=") or not (b'"idempotency_key"' in sent.body or b'"event_id"' in sent.body):
            return forward(sent)
        if signature in used:
            return problem(401, "unauthenticated")
        used.add(signature)
        return forward(sent)

    return defect


proxy(
    "authentication/nothing-is-verified",
    excuses(lambda _world, _sent: True),
    (
        *(f"{AUTH}/{name}" for name in SIGNATURES),
        *(f"{TOKENS}/{name}" for name in FORGED),
        f"{SURFACE}/every-route-needs-credentials",
        f"{SURFACE}/path-variants",
        "drill/safety-rails/events-need-credentials",
        "drill/proof/invalid-signature-refused",
    ),
)
proxy(
    "authentication/a-slash-opens-every-read",
    opens_with_a_slash("GET"),
    ("drill/lifecycle/unknown-run-is-not-found", "drill/outbox/status-of-an-event"),
    "GET of a run or an event, with a slash at the end of its path, needs no credentials.",
)
proxy(
    "authentication/a-slash-opens-events",
    opens_with_a_slash("POST"),
    (f"{SURFACE}/path-variants",),
    "POST of an event, with a slash at the end of its path, needs no credentials.",
)
proxy(
    "authentication/nobody-needs-credentials",
    excuses(lambda _world, _sent: True),
    (f"{AUTH}/signed-accepted", f"{TOKENS}/admin-accepted"),
)
proxy(
    "authentication/unknown-companies-are-not-found",
    whenever(403, lambda _reply: problem(404, "not_found")),
    (f"{AUTH}/unknown-company-forbidden",),
    "A signed request for a company that does not exist is answered 404.",
    green=(f"{AUTH}/signed-accepted", f"{AUTH}/wrong-secret"),
)
proxy(
    "authentication/the-printed-secret-signs",
    excuses(lambda world, sent: sent.signature == world.sign(sent.body, "your-hmac-secret")),
    (f"{AUTH}/known-secrets",),
    green=(f"{AUTH}/wrong-secret",),
)
proxy(
    "authentication/a-secret-that-was-not-filled-in-signs-v2",
    excuses(lambda world, sent: stamped(world, sent, "undefined")),
    (f"{AUTH}/known-secrets",),
    green=(f"{AUTH}/wrong-secret",),
)
proxy(
    "authentication/signed-requests-are-refused",
    refuses(lambda sent: bool(sent.signature)),
    (f"{AUTH}/signed-accepted", "drill/proof/valid-signature-accepted"),
    names=("TRANSBOT_HMAC_SECRET",),
    decision="hold",
)
proxy(
    "authentication/tokens-are-refused",
    refuses(lambda sent: bool(sent.header("Authorization"))),
    (f"{TOKENS}/admin-accepted", "drill/proof/admin-token-accepted"),
    names=("ADMIN_JWT",),
    decision="hold",
)
proxy(
    "authentication/bodies-in-unusual-spellings-are-refused",
    refuses(lambda sent: sent.body[:2] in {b"{\n", b" \t"}),
    (f"{AUTH}/odd-spelling-accepted",),
    green=(f"{AUTH}/reordered-keys",),
)
proxy(
    "authentication/a-time-is-signed-once",
    good_once,
    SENT_AGAIN,
    "A v2 signature is good once: who hears no answer, and sends a request with a key or an event id again, is nobody.",
)
proxy("authentication/forgeries-lock-everybody-out", locks_out, (f"{AUTH}/accepted-after-forgeries",))
proxy("authentication/the-end-of-v1-is-told", tells_that_v1_is_over, (f"{AUTH}/v1-refused-when-v2-is-required",))
proxy(
    "authentication/the-refusal-of-a-known-company-has-a-header-of-its-own", marks_the_known, (f"{AUTH}/one-refusal",)
)
proxy(
    "authentication/invalid-bodies-are-server-errors",
    whenever(400, lambda reply: replace(reply, status=500)),
    (
        *(f"{AUTH}/{name}" for name in ("nul-in-body", "invalid-utf8-body", "utf16-body", "byte-order-mark")),
        *(f"{SURFACE}/{name}" for name in ("nesting", "validation-names-the-field", "refusals-leak-nothing")),
    ),
)
proxy(
    "authentication/browsers-need-no-signature",
    excuses(lambda _world, sent: "Mozilla" in (sent.header("User-Agent") or "")),
    (f"{AUTH}/nothing-else-opens",),
    "A browser is let in without a right signature: the console's users are.",
)
proxy(
    "authentication/only-the-gate-is-answered",
    refuses(lambda sent: not (sent.header("User-Agent") or "replaygate").startswith("replaygate"), 500),
    (f"{AUTH}/nothing-else-opens",),
    "Every client that says what it is meets a server error; the gate, which does not, meets none.",
)
proxy(
    "authentication/neighbours-need-no-signature",
    excuses(lambda _world, sent: (sent.header("Host") or "").endswith(".svc.cluster.local")),
    (f"{AUTH}/nothing-else-opens",),
    "Who asks for the service by its name inside the cluster is let in without a right signature.",
)
proxy(
    "authentication/the-cookie-of-a-session-signs-in",
    excuses(lambda _world, sent: "sb-access-token=" in (sent.header("Cookie") or "")),
    (f"{AUTH}/token-in-cookie",),
    "A session's cookie signs in, so that any web page may send requests for a user who is signed in.",
)
