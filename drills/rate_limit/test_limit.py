"""The rate limit: 3 admitted requests in any 300 s for each tenant and client address, and only those count."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from drills.workbench.bench import Bench
from drills.workbench.checks import LIMIT, SIGNED, TENANTS, Case, cases
from drills.workbench.credentials import REPLAY, Minter
from drills.workbench.rate_limit import Limit, client_addresses
from drills.workbench.scene import new_key
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.deployment.dialect.exchange import path_of, real_path
from gates.deployment.ids import ids_have_spellings, new_id
from gates.deployment.requests import SIGNATURE, Request, encode_body, forged_signature, post, signed_get, token_post
from gates.deployment.tenants.tenants import Tenants
from gates.evidence import Severity

pytestmark = pytest.mark.beside_load

ADMITTED = current().limit("calls")
NEXT = f"call {ADMITTED + 1}"
WINDOW_S = current().limit("window_s")
drill = partial(check, needs=TENANTS, after=LIMIT)

RACES = 3
"""A race is had several times: one may end in the right order by luck."""


@drill("drill/rate-limit/tenants-independent", after=SIGNED, covers=("C04",), phase="first")
def test_tenants_independent(limit: Limit, tenant: str, other: str) -> None:
    """Two tenants behind one address have a limit each: one that is used up leaves the other's whole.

    One tenant locks out all others behind the same address, the drills of this gate among them.
    """
    limit.use_up(tenant)
    limit.admit(other, "another tenant, same address")


# These two wait for no sentinel: a limit that is never used up is what keeps the sentinel from judging.
@drill("drill/rate-limit/fourth-refused", after=LIMIT[:1], covers=("C01",))
def test_fourth_refused(limit: Limit, tenant: str) -> None:
    """Three calls are admitted and the fourth is refused with 429 `rate_limited`; so are more, each by a connection of
    its own.

    Nothing stops a script that replays in a loop, or each process of the service counts for itself.
    """
    limit.fill(tenant)
    limit.limited(limit.request(tenant, NEXT))
    limit.limited(limit.request(tenant, "and another"))
    calls = [limit.request(tenant, "one of many at once, over the limit") for _ in range(4 * ADMITTED)]
    for call, answer in zip(calls, limit.burst(calls), strict=True):
        limit.limited(call, answer=answer)


@drill("drill/rate-limit/three-admitted", after=LIMIT[:1], covers=("C01",))
def test_three_admitted(limit: Limit, tenant: str) -> None:
    """The second and third call in a row are admitted like the first.

    An operator in an incident has fewer calls than promised.
    """
    limit.admit(tenant, "call 1", control=True)
    for number in range(2, ADMITTED + 1):
        request = limit.request(tenant, f"call {number}")
        limit.carried_out(limit.passes(request))


SPOOFS = [
    Case("spoofed-x-forwarded-for", "X-Forwarded-For gives no new bucket.", "X-Forwarded-For"),
    Case("spoofed-forwarded", "Forwarded gives no new bucket.", "Forwarded"),
    Case("spoofed-x-real-ip", "X-Real-IP gives no new bucket.", "X-Real-IP"),
    Case("spoofed-true-client-ip", "True-Client-IP gives no new bucket.", "True-Client-IP"),
    Case("spoofed-cf-connecting-ip", "CF-Connecting-IP gives no new bucket.", "CF-Connecting-IP"),
    Case("spoofed-x-client-ip", "X-Client-IP, and what else proxies write, give no new bucket.", "X-Client-IP"),
]

LESS_KNOWN = [
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "Client-IP",
    "X-Forwarded",
    "Forwarded-For",
    "X-Original-Forwarded-For",
    "X-Remote-Addr",
    "X-Remote-IP",
    "X-Envoy-External-Address",
    "Fly-Client-IP",
    "Fastly-Client-IP",
    "X-Azure-ClientIP",
    "X-Vercel-Forwarded-For",
    "X-Nf-Client-Connection-Ip",
    "X-Appengine-User-Ip",
    "X-ProxyUser-Ip",
]


def _spoofed(name: str) -> list[tuple[str, str]]:
    address = "203.0.113.77"
    if name == "Forwarded":
        return [(name, f"for={address}"), (name, 'for="[2001:db8::77]";proto=https')]
    if name == "X-Forwarded-For":
        return [(name, v) for v in (address, f"{address}, 198.51.100.7", f"127.0.0.1, {address}", "2001:db8::77", "x")]
    return [(each, address) for each in (LESS_KNOWN if name == "X-Client-IP" else (name,))]


@cases("drill/rate-limit", SPOOFS, needs=TENANTS, after=LIMIT, covers=("C03",))
def test_spoofed_address(case: Case, limit: Limit, tenant: str) -> None:
    """No header that a client can set gives it another bucket.

    The limit binds only clients that do not know the header.
    """
    limit.exhaust(tenant)
    limit.untrusted(tenant)
    for name, value in _spoofed(case.value):
        limit.limited(limit.request(tenant, f"{name}: {value}").adding_header(name, value))


@drill("drill/rate-limit/spoofed-address-not-charged", covers=("C09",))
def test_spoofed_address_not_charged(limit: Limit, tenant: str) -> None:
    """A request that names another address in X-Forwarded-For is charged to the address it came from.

    Anyone uses up the limit of a victim whose address he knows.
    """
    limit.admit(tenant, "plain", control=True)
    limit.untrusted(tenant)
    before = [r["key"] for r in limit.buckets(tenant)]
    limit.seen.require(len(before) == 1, f"one call left {len(before)} rows in edge_rate_limits; 1 is due")
    named = ("203.0.113.77", "203.0.113.77, 198.51.100.7")
    for value in named:
        request = limit.request(tenant, f"X-Forwarded-For: {value}").adding_header("X-Forwarded-For", value)
        limit.expect(request, 200)
    keys = [r["key"] for r in limit.buckets(tenant)]
    limit.seen.require(
        len(client_addresses(limit.db, tenant, named)) < 2, "our calls come to the target from several addresses"
    )
    limit.seen.value(list(keys), list(before), "rows")
    assert keys == before, f"calls were charged to the buckets {keys}; allowed: {before}"


@drill("drill/rate-limit/spelling-of-the-company", covers=("C06",))
def test_spelling_of_the_company(limit: Limit, tenant: str) -> None:
    """Another case of the company id shares the tenant's bucket.

    One tenant has as many limits as its id has spellings.
    """
    if not ids_have_spellings():  # another spelling is another company, which there is not
        limit.exhaust(tenant)
        for company in (tenant.upper(), tenant.title()):
            limit.expect(limit.request(company, f"{NEXT} as {company[:13]}..."), (400, 403, 404, 429))
        return
    spellings = (tenant, tenant.upper(), tenant[:9] + tenant[9:].upper())
    for number in range(ADMITTED):
        limit.admit(spellings[number % 3], f"case {number + 1}", control=True)
    for company in (tenant.upper(), tenant.title(), tenant):
        limit.limited(limit.request(company, f"{NEXT} as {company[:13]}..."))


@drill("drill/rate-limit/path-variants-share", covers=("C07",))
def test_path_variants_share(limit: Limit, tenant: str) -> None:
    """No other spelling of the path or query opens a second bucket.

    Each spelling is three more replays.
    """
    limit.exhaust(tenant)
    plain = limit.request(tenant)
    real = real_path(REPLAY)
    for path in (f"{real}?x=1", f"{real}/", f"/{real}", real.upper(), real.replace("-", "%2D")):
        request = Request("POST", path, plain.headers, plain.body, f"POST {path}")
        answer = limit.http.send(request)
        # a page for any path (of a front end, say) is not the endpoint
        elsewhere = 300 <= answer.status < 500 or (answer.status < 300 and answer.json().get("status") is None)
        limit.seen.expect(request, answer, answer.status if elsewhere else 429)


@drill("drill/rate-limit/credentials-share", covers=("C07",))
def test_credentials_share(limit: Limit, bench: Bench, tenant: str) -> None:
    """Signed requests, by v1 or v2, and tokens share the tenant's bucket.

    Each kind of credential is three more replays.
    """
    token = bench.admin(tenant)
    fields = {"company_id": tenant, "max": 1}
    limit.fill(tenant, ADMITTED - 1)
    last = token_post(REPLAY, fields, token, f"call {ADMITTED}, by token")
    limit.expect(last, 200, control=True)
    limit.limited(token_post(REPLAY, fields, token, f"{NEXT}, by token"))
    limit.limited(limit.request(tenant, "another, signed"))
    if limit.claims("authentication"):
        limit.limited(bench.signer.v2(REPLAY, encode_body(fields), "another, signed by v2"))


# --- what does not count ------------------------------------------------------------------------------------------

Refused = Callable[[Limit, str, int], Request]

UNCOUNTED: list[Case] = [
    Case(
        "forged-do-not-count",
        "Requests with a forged signature do not use up the limit of the tenant they name.",
        lambda limit, company, _: limit.request(company, "forged").with_header(SIGNATURE, forged_signature()),
        ("C08",),
    ),
    Case(
        "unsigned-do-not-count",
        "Requests without credentials do not use up the limit of the tenant they name.",
        lambda limit, company, _: post(REPLAY, limit.request(company).body, label="unsigned"),
        ("C08",),
    ),
    Case(
        "invalid-do-not-count",
        "Invalid requests, and those for more than a batch, do not use up the limit.",
        lambda limit, company, n: limit.request(company, "invalid", max=n % 2 * (current().limit("batch") + 1)),
        ("C08",),
    ),
]


@cases("drill/rate-limit", UNCOUNTED, needs=TENANTS, after=LIMIT)
def test_uncounted(case: Case, limit: Limit, tenant: str) -> None:
    """Ten refused requests leave all three calls.

    Anyone who knows a tenant's id locks its operators out, without any credentials.
    """
    make: Refused = case.value
    for number in range(10):
        request = make(limit, tenant, number)
        limit.uncounted(request, (400, 401))
    for number in range(1, ADMITTED + 1):
        request = limit.request(tenant, f"call {number} after ten refused ones")
        limit.passes(request)


@drill("drill/rate-limit/forbidden-do-not-count", needs=("tenants", "mint"), covers=("C08",))
def test_forbidden_do_not_count(limit: Limit, tenant: str, other: str, token: Minter) -> None:
    """Requests of a foreign tenant's token do not use up the limit of the tenant they name, and are forbidden, not
    limited, when that is used up.

    One tenant locks another out, or learns that it is there.
    """
    foreign = token_post(REPLAY, {"company_id": tenant, "max": 1}, token.for_company(other), "foreign token")
    for _ in range(5):
        limit.uncounted(foreign, (403,))
    for number in range(1, ADMITTED + 1):
        request = limit.request(tenant, f"call {number} after five forbidden ones")
        limit.passes(request)
    limit.passes(foreign.labelled("foreign token, the limit used up"), 403)


@drill("drill/rate-limit/reads-not-limited", severity=Severity.WARN, covers=("C17",))
def test_reads_not_limited(limit: Limit, bench: Bench, tenant: str) -> None:
    """With the limit used up, runs can still be read.

    An operator who replayed three times cannot see what became of it.
    """
    run = limit.admit(tenant, "call 1", control=True).json().get("replay_run_id")
    limit.fill(tenant, ADMITTED - 1)
    limit.limited(limit.request(tenant, NEXT), control=True)
    limit.get_run(str(run), tenant)  # a read that comes late is unknown
    for _ in range(4):
        request = signed_get(path_of(f"{REPLAY}/{run}", tenant), bench.target.hmac_secret, bench.clock.now(), "read")
        limit.passes(request)


@drill("drill/rate-limit/events-not-limited", covers=("C17",))
def test_events_not_limited(limit: Limit, bench: Bench, tenant: str) -> None:
    """With the limit used up, events are still accepted.

    Replaying stops a tenant's business.
    """
    limit.exhaust(tenant)
    fields: dict[str, Any] = {"company_id": tenant, "event_type": "drill.plain", "aggregate_key": "k", "payload": {}}
    for number in range(4):
        body = encode_body({**fields, "payload": {"n": number}, "event_id": new_id("event")})
        request = bench.signer.post("/events", body, "an event")
        limit.passes(request, 202)


# --- what counts --------------------------------------------------------------------------------------------------


@drill("drill/rate-limit/dry-runs-count", severity=Severity.WARN, covers=("C16",))
def test_dry_runs_count(limit: Limit, tenant: str) -> None:
    """Dry runs count like real ones.

    The limit works otherwise than documented.
    """
    for number in range(1, ADMITTED + 1):
        limit.admit(tenant, f"dry run {number}", control=True, dry_run=True)
    limit.limited(limit.request(tenant, NEXT))


@drill("drill/rate-limit/forced-calls-count", covers=("C01",))
def test_forced_calls_count(limit: Limit, tenant: str) -> None:
    """`force` ignores retry_after only: forced calls are counted and refused like others, and together with them.

    One word in the body lifts the limit.
    """
    for number in range(1, ADMITTED + 1):
        forced = {"force": True} if number > 1 else {}
        limit.admit(tenant, f"call {number}, {forced}", control=True, **forced)
    limit.limited(limit.request(tenant, f"forced {NEXT}", force=True))


@drill("drill/rate-limit/duplicates-count", severity=Severity.WARN, covers=("C01",))
def test_duplicates_count(limit: Limit, tenant: str) -> None:
    """Repeated requests with one key count like first ones.

    The documented cost is not the cost.
    """
    key = new_key()
    for number in range(1, ADMITTED + 1):
        limit.admit(tenant, f"call {number} with one key", control=True, idempotency_key=key)
    limit.limited(limit.request(tenant, NEXT, idempotency_key=key))


# --- precedence ---------------------------------------------------------------------------------------------------

PRECEDENCE: list[Case] = [
    Case(
        "forged-wins-over-limit",
        "With the limit used up, a forged request is refused with 401.",
        (lambda request: request.with_header(SIGNATURE, forged_signature()), 401),
        ("C15",),
    ),
    Case(
        "invalid-wins-over-limit",
        "With the limit used up, an invalid request is refused with 400.",
        (lambda _request: None, 400),
        ("C15",),
    ),
]


@cases("drill/rate-limit", PRECEDENCE, severity=Severity.WARN, needs=TENANTS, after=LIMIT)
def test_precedence(case: Case, limit: Limit, tenant: str) -> None:
    """Refusals of earlier steps take precedence over 429.

    A stranger learns from 429 that a tenant exists and is busy.
    """
    change, status = case.value
    limit.exhaust(tenant)
    request = change(limit.request(tenant)) or limit.request(tenant, max=0)
    limit.passes(request.labelled(case.name), status)


# --- concurrency and sources --------------------------------------------------------------------------------------


@drill("drill/rate-limit/concurrent-exactly-three", covers=("C10",))
def test_concurrent_exactly_three(limit: Limit, tenants: Tenants, other: str) -> None:
    """Of many calls at once, exactly three are admitted.

    A client that sends fast enough has no limit, or each process of the service counts for itself.
    """
    limit.admit(other, "another tenant", control=True)
    for _ in range(RACES):
        tenant = tenants.create(label="race")
        requests = [limit.request(tenant, "concurrent", dry_run=True) for _ in range(4 * ADMITTED)]
        answers = limit.burst(requests)
        admitted = sum(a.status == 200 for a in answers)
        if admitted == ADMITTED:
            limit.blame_the_limiter(answers, f"exactly {ADMITTED} of {len(answers)} calls were admitted")
        for request, answer in zip(requests, answers, strict=True):
            limit.seen.expect(request, answer, (200, 429))
        if admitted > ADMITTED:
            limit.at_one_address(requests[0])
        limit.seen.value(admitted, ADMITTED, "admitted")
        assert admitted == ADMITTED, (
            f"{admitted} of {len(answers)} concurrent calls were admitted; allowed: exactly {ADMITTED}"
        )
