"""The calls of a deployment under load: events, probes, replays; and plain GETs of any URL."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gates.target.requests import (
    Request,
    encode_body,
    replay_fields,
    signed_get,
    signed_post_v2,
    token_get,
    token_post,
)
from loadtests.drive import Call
from loadtests.plan import Credentials, Plan, Tenant
from loadtests.wire import Address, request_bytes

AGENT = "replaygate-load"
PROBES = ("/healthz", "/version")
REPLAY_REFUSALS = frozenset({409})
"""Refusals that a replay may meet without a failure: paused, still running."""
TEST_COMPANY_REFUSALS = REPLAY_REFUSALS | {403, 429}


@dataclass(slots=True)
class Workload:
    """Makes the calls of one load process; tenants and arrivals are dealt out by the process's index."""

    plan: Plan
    credentials: Credentials
    address: Address
    index: int = 0
    of: int = 1
    _probes: Iterator[str] = field(default_factory=lambda: itertools.cycle(PROBES))
    _companies: Iterator[str] = field(init=False)
    _replays: Iterator[Call] = field(init=False)
    _plain: Call = field(init=False)

    def __post_init__(self) -> None:
        mine = self.plan.tenants[self.index :: self.of]
        companies = [tenant.id for tenant in mine] or ([self.plan.test_company_id] if self.plan.test_company_id else [])
        self._companies = itertools.cycle(companies) if companies else iter(())
        self._replays = self._all_replays(mine)
        path = self.address.prefix or "/"
        self._plain = Call(
            "url", "GET", path, request_bytes(self.address, "GET", "", [("Accept", "*/*"), ("User-Agent", AGENT)])
        )

    def call(self, kind: str) -> Call | None:
        """The next call of a kind; None where there is nothing (more) to call. Events come from `event` instead."""
        match kind:
            case "url":
                return self._plain
            case "probe":
                path = next(self._probes)
                return Call(
                    f"GET {path}",
                    "GET",
                    path,
                    request_bytes(self.address, "GET", path, [("User-Agent", AGENT)]),
                    scenario="probe",
                )
            case "replay":
                return next(self._replays, None)
        return None

    def event(self) -> tuple[Call, str] | None:
        """A canary event and its id; None where there is no tenant to send it for."""
        company = next(self._companies, None)
        if company is None:
            return None
        event_id = str(uuid.uuid4())
        fields = {
            "company_id": company,
            "event_type": "load.canary",
            "aggregate_key": f"load-{event_id[:8]}",
            "payload": {"run": self.plan.run},
            "event_id": event_id,
        }
        return self._call("POST /events", self._post("/events", fields), "event"), event_id

    def event_status(self, event_id: str) -> Call:
        """The question what became of an event."""
        path = f"/events/{event_id}"
        if self.credentials.hmac_secret:
            request = signed_get(path, self.credentials.hmac_secret, int(time.time()))
        else:
            request = token_get(path, self.credentials.admin_jwt)
        return self._call("GET /events/{id}", request, "canary", url="/events/{id}")

    def _post(self, path: str, fields: Mapping[str, object]) -> Request:
        if self.credentials.hmac_secret:
            return signed_post_v2(path, fields, self.credentials.hmac_secret, int(time.time()))
        return token_post(path, encode_body(fields), self.credentials.admin_jwt)

    def _call(
        self, name: str, request: Request, scenario: str, *, url: str = "", expected: frozenset[int] = frozenset()
    ) -> Call:
        headers = [*request.headers, ("User-Agent", AGENT)]
        data = request_bytes(self.address, request.method, request.path, headers, request.body)
        return Call(name, request.method, url or request.path, data, expected, scenario)

    def _all_replays(self, tenants: tuple[Tenant, ...]) -> Iterator[Call]:
        """Three calls a tenant, never more: what the rate limit allows in five minutes from one address.

        Without tenants of our own, three dry runs for the test company, of which drills may have used up the limit and
        whose flags may be off; none where that company is spared.
        """
        of_test_company = self.plan.test_company_id and self.plan.test_company_replays
        if not tenants and of_test_company and self.index == 0:
            for _ in range(3):
                fields = replay_fields(self.plan.test_company_id, max=1, dry_run=True)
                yield self._replay(fields, TEST_COMPANY_REFUSALS, "dry run")
        for tenant in (one for one in tenants if one.replays):
            size = max(1, len(tenant.items))
            key = f"{self.plan.run}-{tenant.id}"
            real = replay_fields(tenant.id, max=size, idempotency_key=key)
            yield self._replay(replay_fields(tenant.id, max=size, dry_run=True), REPLAY_REFUSALS, "dry run")
            yield self._replay(real, REPLAY_REFUSALS, "real run")
            yield self._replay(real, REPLAY_REFUSALS, "duplicate")

    def _replay(self, fields: dict[str, object], expected: frozenset[int], what: str) -> Call:
        return self._call(f"POST /dlq-replay ({what})", self._post("/dlq-replay", fields), "replay", expected=expected)
