"""Faults of the rate limit: what it counts, for whom, and how long."""

import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

import httpx

from faults.altered import altered, instead_of
from faults.catalogue import service
from faults.probe import Probe
from replay_service.client_ip import Network, client_ip
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.exchange import Call, Reply
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.rate_limit import admit
from replay_service.settings import Settings

LIMIT = "drill/rate-limit"
_PROXY = "127.0.0.99"
_OTHER = "00000000-0000-4000-8000-0000000000ff"
_HITS = "SELECT coalesce(sum(count), 0)::integer FROM edge_rate_limits WHERE key LIKE %s"
_LIVE = "h >= clock_timestamp() - make_interval(secs => %(window_s)s)"


def _statuses(probe: Probe, count: int, **fields: Any) -> list[int]:
    with probe.tenant() as company:
        return [probe.replay(company, **{"dry_run": True, **fields}).status_code for _ in range(count)]


def _fifth_after(probe: Probe, seconds: int) -> int:
    """The status of a request when the three before it are so old."""
    with probe.tenant() as company:
        for _ in range(3):
            probe.replay(company, dry_run=True)
        shift = "UPDATE edge_rate_limits SET hits = ARRAY(SELECT h - make_interval(secs => %s) FROM unnest(hits) h)"
        probe.rows(f"{shift} WHERE key LIKE %s", seconds, f"replay:{company}:%")
        return probe.replay(company, dry_run=True).status_code


@service(lambda p: _wait_after_calls_apart(p) > 200, f"{LIMIT}/retry-after-is-true", "Retry-After")
def waits_for_the_youngest(settings: Settings) -> Parts:
    """Retry-After is the wait until the youngest call leaves the window, not the oldest."""
    oldest = "greatest(1, cardinality(seen.hits) - %(allowed)s + 1)"
    return altered(settings, "admit_request", (oldest, "cardinality(seen.hits)"))


def _wait_after_calls_apart(probe: Probe) -> int:
    with probe.tenant() as company:
        probe.rows(
            "INSERT INTO edge_rate_limits (key, hits) VALUES (%s, array_fill(now(), '{2}'))",
            f"replay:{company}:127.0.0.1",
        )
        earlier = "UPDATE edge_rate_limits SET hits = array_prepend(now() - interval '200 s', hits) WHERE key LIKE %s"
        probe.rows(earlier, f"replay:{company}:%")
        return int(probe.replay(company, dry_run=True).headers["Retry-After"])


@service(
    lambda p: _statuses(p, 4) == [200] * 4,
    (f"{LIMIT}/fourth-refused", f"{LIMIT}/concurrent-exactly-three", "drill/proof/fourth-call-refused"),
    "429",
)
def one_more(settings: Settings) -> Parts:
    """The fourth replay request in five minutes is admitted (off by one)."""
    return altered(
        settings,
        "admit_request",
        ("cardinality(seen.hits) >= %(allowed)s)", "cardinality(seen.hits) > %(allowed)s)"),
        (") < %(allowed)s\n", ") <= %(allowed)s\n"),
    )


@service(
    lambda p: _statuses(p, 3)[2] == 429, (f"{LIMIT}/three-admitted", "drill/proof/fourth-call-refused"), ("429", "200")
)
def one_less(settings: Settings) -> Parts:
    """The third replay request in five minutes is refused (off by one)."""
    return altered(
        settings,
        "admit_request",
        ("cardinality(seen.hits) >= %(allowed)s)", "cardinality(seen.hits) >= %(allowed)s - 1)"),
        (") < %(allowed)s\n", ") < %(allowed)s - 1\n"),
    )


@service(
    lambda p: _fifth_after(p, 400) == 429,
    (f"{LIMIT}/window-open-after-300-s", f"{LIMIT}/window-rolls"),
    ("window", "429"),
)
def window_of_ten_minutes(settings: Settings) -> Parts:
    """The window is ten minutes instead of five."""
    return altered(settings, "admit_request", ("%(window_s)s", "600"))


@service(lambda p: _around_the_edge(p) == [200, 200, 200], f"{LIMIT}/window-rolls", ("window", "429"))
def window_fixed(settings: Settings) -> Parts:
    """The window is fixed, not rolling: it restarts 300 s after its first call, so six fit around the edge."""
    fresh = "r.hits[1] >= clock_timestamp() - make_interval(secs => %(window_s)s)"
    return altered(settings, "admit_request", (f"unnest(r.hits) h WHERE {_LIVE}", f"unnest(r.hits) h WHERE {fresh}"))


def _around_the_edge(probe: Probe) -> list[int]:
    """Three calls after three others, one of which has left the window."""
    with probe.tenant() as company:
        probe.replay(company, dry_run=True)
        key = probe.value("SELECT key FROM edge_rate_limits WHERE key LIKE %s", f"replay:{company}:%")
        ages = "ARRAY[now() - interval '301 s', now() - interval '2 s', now() - interval '1 s']"
        probe.rows(f"UPDATE edge_rate_limits SET hits = {ages} WHERE key = %s", key)
        return [probe.replay(company, dry_run=True).status_code for _ in range(3)]


@service(lambda p: _two_tenants(p) == 429, f"{LIMIT}/tenants-independent", ("tenant", "429"))
@instead_of("admit")
async def per_address_only(conn: Connection, _company_id: str, client: str) -> None:
    """The limit is per client address only: one tenant uses up another's."""
    await admit(conn, _OTHER, client)


def _two_tenants(probe: Probe) -> int:
    probe.rows("DELETE FROM edge_rate_limits WHERE key LIKE %s", f"replay:{_OTHER}:%")
    _statuses(probe, 3)
    status = _statuses(probe, 1)[0]
    probe.rows("DELETE FROM edge_rate_limits WHERE key LIKE %s", f"replay:{_OTHER}:%")
    return status


@service(
    lambda p: _beside_a_full_row(p) == 429,
    (f"{LIMIT}/sources-independent", f"{LIMIT}/victim-not-locked-out"),
    ("address", "source", "429"),
)
@instead_of("admit")
async def per_tenant_only(conn: Connection, company_id: str, client: str) -> None:
    """The limit is per tenant only: whoever comes from one address locks out all others."""
    await admit(conn, company_id, client)
    found = await conn.execute(_HITS.encode(), (f"replay:{company_id}:%",))
    if ((await found.fetchone()) or (0,))[0] > 3:
        raise Refusal("rate_limited", "Too many.", headers={"retry-after": "100"})


def _beside_a_full_row(probe: Probe) -> int:
    """The status of the first request of one address when another has used up its limit."""
    full = "INSERT INTO edge_rate_limits (key, hits) VALUES (%s, ARRAY[now(), now(), now()])"
    with probe.tenant() as company:
        probe.rows(full, f"replay:{company}:192.0.2.1")
        return probe.replay(company, dry_run=True).status_code


@service(
    lambda p: _counted_at(p) == "0.0.0.0",  # noqa: S104
    (f"{LIMIT}/sources-independent", f"{LIMIT}/victim-not-locked-out"),
    ("address", "source", "429"),
)
@instead_of("admit")
async def at_no_address(conn: Connection, company_id: str, _client: str) -> None:
    """Every caller is counted at 0.0.0.0, as if all came from one address."""
    await admit(conn, company_id, "0.0.0.0")  # noqa: S104


def _counted_at(probe: Probe) -> str:
    with probe.tenant() as company:
        probe.replay(company, dry_run=True)
        key = str(probe.value("SELECT key FROM edge_rate_limits WHERE key LIKE %s", f"replay:{company}%"))
        return key.rpartition(":")[2]


@service(
    lambda p: _spoofed(p, "X-Forwarded-For") == 200,
    (f"{LIMIT}/spoofed-x-forwarded-for", f"{LIMIT}/spoofed-address-not-charged", f"{LIMIT}/victim-not-locked-out"),
    ("forwarded", "429"),
)
@instead_of("client_ip")
def forwarded_trusted(peer: str | None, forwarded: Sequence[bytes], trusted: Sequence[Network]) -> str:
    """The client address is the left-most X-Forwarded-For entry, whoever sends it."""
    first = forwarded[0].split(b",")[0].strip().decode("latin-1") if forwarded else ""
    return first or client_ip(peer, forwarded, trusted)


@service(None, f"{LIMIT}/counted-when-its-turn-comes", "waited")
def one_more_after_a_wait(settings: Settings) -> Parts:
    """Calls that waited for the locked row of their tenant are admitted up to one over the limit."""
    return altered(settings, "admit_request", ("  ) < %(allowed)s", "  ) <= %(allowed)s"))


@service(
    lambda p: passed_on(p, "203.0.113.1, 203.0.113.2") == "203.0.113.1", f"{LIMIT}/behind-a-trusted-proxy", "passed on"
)
@instead_of("client_ip")
def first_entry_of_a_proxy(peer: str | None, forwarded: Sequence[bytes], trusted: Sequence[Network]) -> str:
    """Behind a trusted proxy the client address is the left-most X-Forwarded-For entry, which the client chose."""
    whole = b",".join(forwarded).split(b",")[0]
    return client_ip(peer, [whole] if forwarded else [], trusted)


@service(lambda p: passed_on(p, "203.0.113.1") == _PROXY, f"{LIMIT}/behind-a-trusted-proxy", "passed on")
@instead_of("client_ip")
def proxy_is_charged(peer: str | None, _forwarded: Sequence[bytes], trusted: Sequence[Network]) -> str:
    """Calls through a trusted proxy are charged to the proxy: all of its clients share one limit."""
    return client_ip(peer, [], trusted)


@service(lambda p: passed_on(p, "203.0.113.1", _PROXY) == _PROXY, f"{LIMIT}/behind-a-trusted-proxy", "passed on")
@instead_of("client_ip")
def last_header_of_a_proxy(peer: str | None, forwarded: Sequence[bytes], trusted: Sequence[Network]) -> str:
    """Of the headers of a trusted proxy only the last is read: where it names a proxy, all clients share one limit."""
    return client_ip(peer, forwarded[-1:], trusted)


@service(lambda p: _fourth_by_v2(p) == 200, (f"{LIMIT}/credentials-share", "drill/ledger/counted-however-asked"), "v2")
def timed_calls_are_free(settings: Settings) -> Parts:
    """Calls signed with v2 are not counted."""
    release = build_parts(settings)

    async def free(_conn: Connection, _company_id: str, _client: str) -> None:
        return

    async def replay(parts: Parts, call: Call) -> Reply:
        signature = (await parts.authenticate(parts, call.headers, call.body)).signature
        is_timed = signature is not None and signature.version == 2
        return await release.replay(dataclasses.replace(parts, admit=free) if is_timed else parts, call)

    return dataclasses.replace(release, replay=replay)


def _fourth_by_v2(probe: Probe) -> int:
    with probe.tenant() as company:
        for _ in range(3):
            probe.replay(company, dry_run=True)
        body = json.dumps({"company_id": company, "dry_run": True}).encode()
        return probe.send(body, {"X-Transbot-Signature": probe.sign_v2(body, int(time.time()))}).status_code


def passed_on(probe: Probe, *forwarded: str) -> str:
    """The address to which a call of the proxy that the stack trusts is charged."""
    with probe.tenant() as company, httpx.Client(transport=httpx.HTTPTransport(local_address=_PROXY)) as proxy:
        body = json.dumps({"company_id": company, "dry_run": True}).encode()
        headers = [("Content-Type", "application/json"), ("X-Transbot-Signature", probe.sign(body))]
        headers += [("X-Forwarded-For", value) for value in forwarded]
        proxy.post(f"{probe.environ['BASE_URL']}/dlq-replay", content=body, headers=headers)
        key = str(probe.value("SELECT key FROM edge_rate_limits WHERE key LIKE %s", f"replay:{company}:%"))
        return key.split(":", 2)[2]


def _spoofed(probe: Probe, header: str) -> int:
    with probe.tenant() as company:
        body = json.dumps({"company_id": company, "dry_run": True}).encode()
        signed = {"X-Transbot-Signature": probe.sign(body)}
        return [probe.send(body, signed | {header: f"203.0.113.{n}"}).status_code for n in range(1, 5)][3]


@service(None, "drill/rate-limit/sources-independent", "at once")
def counted_at_the_last_address(settings: Settings) -> Parts:
    """The client address is a global variable: a call is counted at the address of the latest one."""
    release, last = build_parts(settings), [""]

    def heard(peer: str | None, forwarded: Sequence[bytes], trusted: Sequence[Network]) -> str:
        last[0] = release.client_ip(peer, forwarded, trusted)
        return last[0]

    async def twin(conn: Connection, company_id: str, _client: str) -> None:
        await release.admit(conn, company_id, last[0])

    return dataclasses.replace(release, client_ip=heard, admit=twin)
