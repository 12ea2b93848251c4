"""What a target can do beyond the contract's minimum: asked of the target, never guessed.

`drill-agent`: `/version` says `"drill_agent": true`. `two-sources`: requests from two local addresses reach the target
(only a loopback target can be asked that way) and are not seen as coming from one: a forwarded or published port hides
where a call comes from, and each address then has what the other leaves of the rate limit. `memory-metric`: `/metrics`
shows how much memory the process has. `baseline`: BASELINE_URL names the previous release.
"""

import ipaddress
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg

from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.http.clock import Clock
from gates.deployment.http.metrics import MEMORY_METRIC, parse_metrics
from gates.deployment.requests import Answer, Request, signed_post_v2
from gates.deployment.sql.database import Connection, execute
from gates.deployment.sql.kept import borrowed
from gates.deployment.target import Target
from gates.deployment.tenants.leftovers import take_lease, term_of
from gates.deployment.tenants.tenants import Tenants
from gates.evidence import Where

PROBE_TIMEOUT_S = 5.0
SECOND_SOURCE = "127.0.0.2"
VERSION = Request("GET", "/version")
METRICS = Request("GET", "/metrics")


def evidence_id(capability: str) -> str:
    """The id of the evidence that says whether the target claims the capability."""
    return f"preflight/capability/{capability}"


def claims(target: Target, on_create: Callable[[str], object] | None = None) -> dict[str, bool | None]:
    """Capability -> whether the target has it; None if it could not be asked.

    on_create: told the id of a company before it is created. One is created, to see how the target tells two sources
    apart, only if staging checks may run: no other checks need two sources.
    """
    with ThreadPoolExecutor(2, "capabilities") as beside:  # each is a few round trips, and a target may be far
        sources, memory = beside.submit(_two_sources, target, on_create), beside.submit(_memory_metric, target)
        return {
            "drill-agent": _drill_agent(target),
            "two-sources": sources.result(),
            "memory-metric": memory.result(),
            "baseline": bool(target.baseline_url),
        }


def _drill_agent(target: Target) -> bool | None:
    answer = _asked(target, VERSION)
    return answer.json().get("drill_agent") is True if answer and answer.json() else None


def _memory_metric(target: Target) -> bool | None:
    answer = _asked(target, METRICS)
    return bool(parse_metrics(answer.body).named(MEMORY_METRIC)) if answer else None


def _asked(target: Target, request: Request) -> Answer | None:
    if not target.base_url:
        return None
    try:
        with HttpDoor(target.base_url, timeout_s=PROBE_TIMEOUT_S) as door:
            answer = door.send(request)
    except NoAnswer:
        return None
    return answer if answer.status == 200 else None


def _two_sources(target: Target, on_create: Callable[[str], object] | None) -> bool | None:
    if not target.base_url:
        return None
    if not is_loopback(target.base_url):
        return False
    if not _answers(target, None):
        return None
    if not _answers(target, SECOND_SOURCE):
        return False
    one = _looks_like_one(target, on_create)
    return None if one is None else not one


def _looks_like_one(target: Target, on_create: Callable[[str], object] | None) -> bool | None:
    """Whether dry runs from both sources are counted at the same address. None if they failed and show nothing. False
    if it cannot be seen otherwise: a target that uses no address (0.0.0.0 is none), or does not count, is checked.
    """
    if not (target.kind.allows(Where.STAGING) and target.database_url and target.hmac_secret):
        return False
    try:
        with a_company(target, on_create) as (connection, company):
            return _counted_at_one(target, connection, company)
    except NoAnswer:
        return None
    except (OSError, ValueError, psycopg.Error):
        return False


@contextmanager
def a_company(target: Target, on_create: Callable[[str], object] | None) -> Iterator[tuple[Connection, str]]:
    """A temporary company of the gate. Raise OSError, ValueError or psycopg.Error."""
    run = secrets.token_hex(4)
    lease, mark = take_lease(target.database_url, run)  # if it cannot be removed here, the next gate removes it
    try:
        with borrowed(target.database_url) as connection:
            tenants = Tenants(connection, run, on_create=on_create, lease=term_of(mark, target.database_url))
            try:
                yield connection, tenants.create(label="asked")
            finally:
                tenants.remove()
    finally:
        if lease is not None:
            lease.release()


def _counted_at_one(target: Target, connection: Connection, company: str) -> bool | None:
    answered = []
    for source in (None, SECOND_SOURCE):
        with HttpDoor(target.base_url, timeout_s=PROBE_TIMEOUT_S, source=source) as door:
            fields = {"company_id": company, "dry_run": True}
            request = signed_post_v2("/dlq-replay", fields, target.hmac_secret, Clock(door).now())
            answered.append(door.send(request).status)
    rows = execute(
        connection,
        "select substr(key, %s) as address, cardinality(hits) as calls from public.edge_rate_limits where key like %s",
        len(f"replay:{company}:") + 1,
        f"replay:{company}:%",
    )
    calls = [row["calls"] for row in rows]
    if calls != [2]:
        return False if len(calls) > 1 or answered == [200, 200] else None
    at = ipaddress.ip_address(str(rows[0]["address"]))
    return at != ipaddress.ip_address(SECOND_SOURCE) and not at.is_unspecified


def _answers(target: Target, source: str | None) -> bool:
    try:
        with HttpDoor(target.base_url, timeout_s=PROBE_TIMEOUT_S, source=source) as door:
            return door.send(VERSION).status == 200
    except (NoAnswer, OSError):
        return False


def is_loopback(base_url: str) -> bool:
    """Whether the host of the URL is an IPv4 loopback address (or localhost)."""
    try:
        host = urlsplit(base_url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host) in ipaddress.ip_network("127.0.0.0/8")
    except (ValueError, TypeError):
        return False
