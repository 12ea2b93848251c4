"""The rate limit of a tenant and an address: callers from several addresses, and what a proxy says of them."""

from functools import partial
from ipaddress import ip_network

from drills.workbench.bench import Sources
from drills.workbench.checks import LIMIT, TENANTS
from drills.workbench.rate_limit import Limit, client_address
from gates.checks.recorder import check
from gates.deployment.dialect.current import current
from gates.evidence import Severity, Where

ADMITTED = current().limit("calls")
ROUNDS = 2
"""How often both addresses call at once."""
drill = partial(check, needs=TENANTS, after=LIMIT)


@drill(
    "drill/rate-limit/sources-independent",
    severity=Severity.WARN,
    where=Where.STAGING,
    needs=("tenants", "two-sources"),
    covers=("C05",),
)
def test_sources_independent(limit: Limit, sources: Sources, tenant: str) -> None:
    """One tenant has a limit for each client address, also where both call at once.

    One careless script locks out everyone of its tenant.
    """
    second = sources.door("127.0.0.2")
    limit.exhaust(tenant)
    request = limit.request(tenant, "from 127.0.0.2")
    limit.passes(request, door=second)
    for number in range(ROUNDS):
        company = limit.company(f"crowd-{number}")
        calls = [limit.request(company, "at once", dry_run=True) for _ in range(ADMITTED)]
        answers = limit.burst(calls, limit.http, second)
        refused = sum(answer.code == "rate_limited" for answer in answers)
        assert not refused, f"{refused} of {len(answers)} calls at once, {ADMITTED} from each address, were refused"
        limit.seen.require(served := sum(answer.status == 200 for answer in answers), "no call at once was served")
        limit.seen.count(served)


@drill(
    "drill/rate-limit/behind-a-trusted-proxy",
    severity=Severity.WARN,
    where=Where.STAGING,
    needs=("tenants", "two-sources"),
    covers=("C05", "C09"),
)
def test_behind_a_trusted_proxy(limit: Limit, sources: Sources, tenant: str) -> None:
    """A request through a trusted proxy is charged to the right-most address, over all headers, that is not a trusted
    proxy's; where that is no address, to the proxy. A proxy that is not trusted is charged itself.

    With another entry a client chooses its own bucket; with the proxy's address all its clients share one.
    """
    proxy, is_trusted = _proxy(limit)
    door = sources.door(proxy)
    passed_on = {
        ("203.0.113.1",): "203.0.113.1",
        ("203.0.113.2, 203.0.113.3",): "203.0.113.3",
        (f"203.0.113.4, {proxy}",): "203.0.113.4",
        ("203.0.113.5", "203.0.113.6"): "203.0.113.6",
        ("203.0.113.7, nonsense",): proxy,
        ("203.0.113.8", proxy): "203.0.113.8",
        ("203.0.113.9, 2001:db8::9:1",): "2001:db8::9:1",
    }
    plain = limit.request(tenant, f"from {proxy}", dry_run=True)
    limit.seen.expect(plain, door.send(plain), 200, control=True)
    for headers in list(passed_on)[: None if is_trusted else ADMITTED - 1]:
        request = limit.request(tenant, f"X-Forwarded-For: {' and '.join(headers)}", dry_run=True)
        for value in headers:
            request = request.adding_header("X-Forwarded-For", value)
        limit.seen.expect(request, door.send(request), (200, 429))  # a bucket that is wrong may be full
    due = sorted(passed_on.values()) if is_trusted else [proxy]
    found = {str(r["key"]).split(":", 2)[2] for r in limit.buckets(tenant)}
    # behind a second trusted proxy, that one is the peer
    charged = sorted({proxy if limit.trusts(a) else client_address(a) or a for a in found})
    limit.seen.value(list(charged), list(due), "addresses")
    assert charged == due, f"calls that {proxy} passed on were charged to {charged}; due: {due}"


def _proxy(limit: Limit) -> tuple[str, bool]:
    """A loopback address to call from that TRUSTED_PROXIES names, and True; one that it does not name where none is."""
    named = [ip_network(p, strict=False) for p in limit.target.trusted_proxies]
    loopback = next((str(n.network_address) for n in named if n.is_loopback and n.prefixlen == n.max_prefixlen), "")
    return (loopback, True) if loopback else ("127.0.0.2", False)


@drill("drill/rate-limit/victim-not-locked-out", where=Where.STAGING, needs=("tenants", "two-sources"), covers=("C09",))
def test_victim_not_locked_out(limit: Limit, sources: Sources, tenant: str) -> None:
    """Calls that name another address leave that address its three calls.

    Anyone locks out a victim whose address he knows.
    """
    victim = sources.door("127.0.0.2")
    for _ in range(ADMITTED):
        request = limit.request(tenant, "naming the victim").adding_header("X-Forwarded-For", "127.0.0.2")
        limit.expect(request, 200, control=True)
    plain = limit.request(tenant, "naming nobody")  # a bucket of our own address, where that is believed
    limit.seen.expect(plain, limit.http.send(plain), (200, 429), control=True)
    limit.untrusted(tenant)
    request = limit.request(tenant, "the victim's own call")
    limit.carried_out(limit.passes(request, door=victim))
