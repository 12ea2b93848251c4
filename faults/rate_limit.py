"""Faults of the rate limit: what it counts, for whom, and how long."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from faults.altered import altered
from faults.catalogue import service
from faults.probe import Probe
from faults.requests import App, is_dry, remembering, wrapped
from replay_service.client_ip import Network, client_ip
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.exchange import Call, Reply
from replay_service.parts import Parts
from replay_service.problems import Refusal
from replay_service.rate_limit import admit
from replay_service.replay import replay
from replay_service.settings import Settings

LIMIT = "drill/rate-limit"
_OTHER = "00000000-0000-4000-8000-0000000000ff"
_HITS = "SELECT coalesce(sum(count), 0)::integer FROM edge_rate_limits WHERE key LIKE %s"
_LIVE = "h >= clock_timestamp() - make_interval(secs => %(window_s)s)"


def _statuses(probe: Probe, count: int, **fields: Any) -> list[int]:
    with probe.tenant() as company:
        return [probe.replay(company, **{"dry_run": True, **fields}).status_code for _ in range(count)]


def _hits_after(probe: Probe, call: Callable[[str], Any], before: str = "") -> int:
    """The hits counted for a tenant after a call."""
    with probe.tenant() as company:
        if before:
            probe.rows(before, company)
        call(company)
        return int(probe.value(_HITS, f"replay:{company}:%"))


def _fifth_after(probe: Probe, seconds: int) -> int:
    """The status of a request when the three before it are so old."""
    with probe.tenant() as company:
        for _ in range(3):
            probe.replay(company, dry_run=True)
        shift = "UPDATE edge_rate_limits SET hits = ARRAY(SELECT h - make_interval(secs => %s) FROM unnest(hits) h)"
        probe.rows(f"{shift} WHERE key LIKE %s", seconds, f"replay:{company}:%")
        return probe.replay(company, dry_run=True).status_code


@service(
    "The fourth replay request in five minutes is admitted (off by one).",
    lambda p: _statuses(p, 4) == [200] * 4,
    (f"{LIMIT}/fourth-refused", f"{LIMIT}/concurrent-exactly-three", "drill/proof/fourth-call-refused"),
    names=("429",),
)
def one_more(settings: Settings) -> Parts:
    return altered(
        settings,
        "admit_request",
        ("cardinality(seen.hits) >= %(allowed)s)", "cardinality(seen.hits) > %(allowed)s)"),
        (") < %(allowed)s\n", ") <= %(allowed)s\n"),
    )


@service(
    "The third replay request in five minutes is refused (off by one).",
    lambda p: _statuses(p, 3)[2] == 429,
    (f"{LIMIT}/three-admitted", f"{LIMIT}/fourth-refused"),
    names=("429", "200"),
)
def one_less(settings: Settings) -> Parts:
    return altered(
        settings,
        "admit_request",
        ("cardinality(seen.hits) >= %(allowed)s)", "cardinality(seen.hits) >= %(allowed)s - 1)"),
        (") < %(allowed)s\n", ") < %(allowed)s - 1\n"),
    )


@service(
    "There is no rate limit.",
    lambda p: _statuses(p, 6) == [200] * 6,
    (f"{LIMIT}/fourth-refused", "drill/proof/fourth-call-refused"),
    names=("429",),
)
def off(settings: Settings) -> Parts:
    async def twin(_conn: Connection, _company_id: str, _client: str) -> None:
        return

    return dataclasses.replace(build_parts(settings), admit=twin)


@service(
    "The window is one minute instead of five.",
    lambda p: _fifth_after(p, 100) == 200,
    (f"{LIMIT}/window-closed-until-300-s",),
    names=("429", "window"),
)
def window_of_a_minute(settings: Settings) -> Parts:
    return altered(settings, "admit_request", ("%(window_s)s", "60"))


@service(
    "The window is ten minutes instead of five.",
    lambda p: _fifth_after(p, 400) == 429,
    (f"{LIMIT}/window-open-after-300-s", f"{LIMIT}/window-rolls"),
    names=("window", "429"),
)
def window_of_ten_minutes(settings: Settings) -> Parts:
    return altered(settings, "admit_request", ("%(window_s)s", "600"))


@service(
    "The window is fixed: it begins anew when its first hit is 300 s old, so six fit around the edge.",
    lambda p: _around_the_edge(p) == [200, 200, 200],
    (f"{LIMIT}/window-rolls",),
    names=("window", "429"),
)
def window_fixed(settings: Settings) -> Parts:
    fresh = "r.hits[1] >= clock_timestamp() - make_interval(secs => %(window_s)s)"
    return altered(settings, "admit_request", (f"unnest(r.hits) h WHERE {_LIVE}", f"unnest(r.hits) h WHERE {fresh}"))


def _around_the_edge(probe: Probe) -> list[int]:
    """Three calls, when of the three before them one has left the window and two have not."""
    with probe.tenant() as company:
        probe.replay(company, dry_run=True)
        key = probe.value("SELECT key FROM edge_rate_limits WHERE key LIKE %s", f"replay:{company}:%")
        ages = "ARRAY[now() - interval '301 s', now() - interval '2 s', now() - interval '1 s']"
        probe.rows(f"UPDATE edge_rate_limits SET hits = {ages} WHERE key = %s", key)
        return [probe.replay(company, dry_run=True).status_code for _ in range(3)]


@service(
    "The limit is per client address: one tenant uses up another's.",
    lambda p: _two_tenants(p) == 429,
    (f"{LIMIT}/tenants-independent",),
    names=("tenant", "429"),
)
def per_address_only(settings: Settings) -> Parts:
    async def twin(conn: Connection, _company_id: str, client: str) -> None:
        await admit(conn, _OTHER, client)

    return dataclasses.replace(build_parts(settings), admit=twin)


def _two_tenants(probe: Probe) -> int:
    probe.rows("DELETE FROM edge_rate_limits WHERE key LIKE %s", f"replay:{_OTHER}:%")
    _statuses(probe, 3)
    status = _statuses(probe, 1)[0]
    probe.rows("DELETE FROM edge_rate_limits WHERE key LIKE %s", f"replay:{_OTHER}:%")
    return status


@service(
    "The limit is per tenant only: whoever comes from one address locks out all others.",
    lambda p: _key_of(p).endswith(":0.0.0.0"),
    (f"{LIMIT}/sources-independent", f"{LIMIT}/row-as-documented", f"{LIMIT}/victim-not-locked-out"),
    names=("address", "key", "source"),
)
def per_tenant_only(settings: Settings) -> Parts:
    async def twin(conn: Connection, company_id: str, _client: str) -> None:
        await admit(conn, company_id, "0.0.0.0")  # noqa: S104

    return dataclasses.replace(build_parts(settings), admit=twin)


def _key_of(probe: Probe) -> str:
    with probe.tenant() as company:
        probe.replay(company, dry_run=True)
        return str(probe.value("SELECT key FROM edge_rate_limits WHERE key LIKE %s", f"replay:{company}%"))


@service(
    "The client address is the left-most X-Forwarded-For entry, whoever sends it.",
    lambda p: _spoofed(p, "X-Forwarded-For") == 200,
    (f"{LIMIT}/spoofed-x-forwarded-for", f"{LIMIT}/spoofed-address-not-charged", f"{LIMIT}/victim-not-locked-out"),
    names=("forwarded", "429"),
)
def forwarded_trusted(settings: Settings) -> Parts:
    def twin(peer: str | None, forwarded: Sequence[bytes], trusted: Sequence[Network]) -> str:
        first = forwarded[0].split(b",")[0].strip().decode("latin-1") if forwarded else ""
        return first or client_ip(peer, forwarded, trusted)

    return dataclasses.replace(build_parts(settings), client_ip=twin)


@service(
    "The client address is X-Real-IP, whoever sends it.",
    lambda p: _spoofed(p, "X-Real-IP") == 200,
    (f"{LIMIT}/spoofed-x-real-ip",),
    names=("real", "429"),
)
def real_ip_trusted(settings: Settings) -> Parts:
    def wrap(app: App) -> App:
        async def twin(scope: Any, receive: Any, send: Any) -> None:
            found = dict(scope.get("headers", ())).get(b"x-real-ip")
            await app({**scope, "client": (found.decode("latin-1"), 1)} if found else scope, receive, send)

        return twin

    return wrapped(settings, wrap)


def _spoofed(probe: Probe, header: str) -> int:
    with probe.tenant() as company:
        body = json.dumps({"company_id": company, "dry_run": True}).encode()
        signed = {"X-Transbot-Signature": probe.sign(body)}
        return [probe.send(body, signed | {header: f"203.0.113.{n}"}).status_code for n in range(1, 5)][3]


@service(
    "A refused request counts, too: whoever asks again never gets in.",
    lambda p: len(_hits_of_refused(p)) > 3,
    (f"{LIMIT}/refusal-changes-nothing",),
    names=("hits", "refus", "count"),
)
def refused_count(settings: Settings) -> Parts:
    async def twin(conn: Connection, company_id: str, client: str) -> None:
        try:
            await admit(conn, company_id, client)
        except Refusal:
            more = b"UPDATE edge_rate_limits SET hits = hits || clock_timestamp() WHERE key = %s"
            await conn.execute(more, (f"replay:{company_id}:{client}",))
            raise

    return dataclasses.replace(build_parts(settings), admit=twin)


def _hits_of_refused(probe: Probe) -> list[Any]:
    with probe.tenant() as company:
        for _ in range(5):
            probe.replay(company, dry_run=True)
        return list(probe.value("SELECT hits FROM edge_rate_limits WHERE key LIKE %s", f"replay:{company}:%"))


@service(
    "Dry runs do not count.",
    lambda p: _statuses(p, 4) == [200] * 4,
    (f"{LIMIT}/dry-runs-count", "drill/dry-run/one-limited-call"),
    names=("dry",),
)
def dry_runs_free(settings: Settings) -> Parts:
    async def twin(conn: Connection, company_id: str, client: str) -> None:
        if not is_dry():
            await admit(conn, company_id, client)

    return dataclasses.replace(remembering(settings), admit=twin)


def _takes_back(settings: Settings, wanted: Callable[[Reply | Refusal], bool]) -> Parts:
    """The count of a request is taken back when its outcome is of some kind."""

    async def take_back(parts: Parts, call: Call) -> None:
        less = b"UPDATE edge_rate_limits SET hits = hits[1:cardinality(hits) - 1] WHERE key = %s"
        company = str(json.loads(call.body)["company_id"]).lower()
        async with parts.database.connection() as conn:
            await conn.execute(less, (f"replay:{company}:{call.client}",))

    async def twin(parts: Parts, call: Call) -> Reply:
        try:
            reply = await replay(parts, call)
        except Refusal as refusal:
            if wanted(refusal):
                await take_back(parts, call)
            raise
        if wanted(reply):
            await take_back(parts, call)
        return reply

    return dataclasses.replace(build_parts(settings), replay=twin)


@service(
    "Duplicates do not count.",
    lambda p: _statuses(p, 5, dry_run=False, idempotency_key="k") == [200] * 5,
    (f"{LIMIT}/duplicates-count",),
    names=("duplicate",),
    decision="hold",
)
def duplicates_free(settings: Settings) -> Parts:
    return _takes_back(settings, lambda found: isinstance(found, Reply) and found.outcome == "duplicate")


_FLAG_OFF = "INSERT INTO feature_flags (key, company_id, enabled) VALUES ('dlq.replay.enabled', %s, false)"
_PAUSED = "INSERT INTO agent_controls (company_id, agents_paused) VALUES (%s, true)"


@service(
    "A request that a later step refuses is not counted: the paused, the switched off and the poor ask without limit.",
    lambda p: _hits_after(p, p.replay, _PAUSED) == 0,
    ("drill/rate-limit/later-refusals-count", "drill/rate-limit/exhausted-budget-counts"),
    names=("was not counted",),
)
def later_refusals_free(settings: Settings) -> Parts:
    later = {"feature_disabled", "agents_paused", "budget_exhausted", "idempotency_key_reused"}
    return _takes_back(settings, lambda found: isinstance(found, Refusal) and found.code in later)


@service(
    "The count is in the transaction of the replay: what is refused by its flag is rolled back with it.",
    lambda p: _hits_after(p, p.replay, _FLAG_OFF) == 0,
    ("drill/rate-limit/later-refusals-count",),
    names=("the flag refused",),
)
def flag_refusals_free(settings: Settings) -> Parts:
    return _takes_back(settings, lambda found: isinstance(found, Refusal) and found.code == "feature_disabled")


@service(
    "Requests count before they are authenticated: strangers lock a tenant out.",
    lambda p: _hits_after(p, lambda c: p.send(json.dumps({"company_id": c}).encode(), {})) == 1,
    (f"{LIMIT}/unsigned-do-not-count", f"{LIMIT}/forged-do-not-count"),
    names=("count", "429", "forged", "unsigned"),
)
def counted_before_authentication(settings: Settings) -> Parts:
    return _counting_refusals(settings, {"unauthenticated"})


@service(
    "Requests count before they are validated.",
    lambda p: _hits_after(p, lambda c: p.replay(c, max_items=0)) == 1,
    (f"{LIMIT}/invalid-do-not-count",),
    names=("count", "429", "invalid"),
)
def counted_before_validation(settings: Settings) -> Parts:
    return _counting_refusals(settings, {"invalid_request", "batch_too_large"})


@service(
    "Requests count before they are authorised: an admin of one company locks out another.",
    lambda p: _hits_after(p, lambda c: _as_foreign_admin(p, c)) == 1,
    (f"{LIMIT}/forbidden-do-not-count",),
    names=("count", "429", "forbidden"),
)
def counted_before_authorisation(settings: Settings) -> Parts:
    return _counting_refusals(settings, {"forbidden"})


def _as_foreign_admin(probe: Probe, company: str) -> None:
    token = probe.token({"role": "company_admin", "company_id": _OTHER})
    probe.send(json.dumps({"company_id": company}).encode(), probe.as_token(token))


def _counting_refusals(settings: Settings, codes: set[str]) -> Parts:
    async def twin(parts: Parts, call: Call) -> Reply:
        try:
            return await replay(parts, call)
        except Refusal as refusal:
            company = _company_in(call.body) if refusal.code in codes else ""
            if company:
                async with parts.database.connection() as conn:
                    await parts.admit(conn, company, call.client)
            raise

    return dataclasses.replace(build_parts(settings), replay=twin)


def _company_in(body: bytes) -> str:
    try:
        return str(json.loads(body)["company_id"]).lower()[:36]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
