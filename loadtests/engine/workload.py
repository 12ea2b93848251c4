"""The calls of a deployment under load: events, probes, replays; and plain GETs of any URL."""

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from gates.deployment import requests
from gates.deployment.dialect.current import current
from gates.deployment.dialect.exchange import on_the_wire, path_of
from gates.deployment.http.probes import has_dry_runs
from gates.deployment.ids import new_id
from loadtests.engine.drive import BaselineCall, Call
from loadtests.engine.wire import Address, parse_address, request_bytes
from loadtests.engine.written import EVENT, RUN, Acknowledgement
from loadtests.plan import REPLAYS_EACH, Credentials, LoadPlan, Tenant, UrlRequest
from loadtests.thresholds import expectations
from loadtests.thresholds.requests import VARIABLE

OWN_HEADERS = {"User-Agent": "replaygate-load", "Accept-Encoding": "identity"}
PROBES = {"/healthz": expectations.ALIVE, "/version": expectations.version_of()}
MIX = ("event", "probe", "event", "probe", "replay")
"""What a user, or a scenario that names no operation, does by turns."""
EVENT_TENANTS = 10
"""Companies that events are sent for; the others are there for their replay calls."""
PAUSED = frozenset({"agents_paused"})
REPLAY_REFUSALS = PAUSED | {"in_progress"}
"""Refusals that a replay may meet without a failure."""
TEST_COMPANY_REFUSALS = PAUSED | {"feature_disabled", "rate_limited"}


@dataclass(slots=True)
class Workload:
    """Makes the calls of one load process; tenants and arrivals are dealt out by the process's index."""

    plan: LoadPlan
    credentials: Credentials
    address: Address
    index: int = 0
    of: int = 1
    _probes: Iterator[str] = field(init=False)
    _companies: Iterator[str] = field(init=False)
    _replays: Iterator[Call] = field(init=False)
    _left: dict[str, Iterator[Call]] = field(init=False)
    _plain: Mapping[str, Call] = field(init=False)
    _baseline: Address | None = field(init=False)

    def __post_init__(self) -> None:
        names = current()
        self._probes = itertools.cycle(path for path in PROBES if names.has_page(path))
        mine = tuple(t for t in self.plan.tenants[self.index :: self.of] if self._may_act_for(t.id))
        companies = [t.id for t in mine[: max(1, EVENT_TENANTS // self.of)]]
        test_company = self.plan.test_company_id
        companies = companies or ([test_company] if test_company and self._may_act_for(test_company) else [])
        has_events = names.claims("outbox") and "/events" not in names.lacking
        self._companies = itertools.cycle(companies if has_events else ())
        self._left = self._all_replays(mine)
        self._replays = (call for _ in range(REPLAYS_EACH) for left in self._left.values() for call in islice(left, 1))
        where = {"keeps": self.plan.keeps_connections, "checked": self.plan.checks_certificates}
        self._baseline = parse_address(self.plan.baseline_url, **where) if self.plan.baseline_url else None
        asked = self.plan.requests or (UrlRequest("url", "GET", "", (("Accept", "*/*"),)),)
        self._plain = {one.name: self._of_url(one) for one in asked if self.plan.is_url}

    def kinds(self, wanted: str) -> Iterator[str]:
        """The kinds of calls that a scenario makes by turns."""
        mix = tuple(self._plain) if self.plan.is_url else MIX
        return itertools.cycle((wanted,) if wanted else mix)

    def call(self, kind: str) -> Call | None:
        """The next call of a kind; None where there is nothing (more) to call. Events come from `event` instead."""
        match kind:
            case name if name in self._plain:
                return self._plain[name]
            case "probe":
                path = next(self._probes, "")
                if not path:
                    return None
                request, expectation = requests.Request("GET", path), PROBES[path]
                twin = self._twin(request, expectation)  # of another release
                expectation = expectations.version_of(self.plan.release) if path == "/version" else expectation
                return self._call(f"GET {path}", request, "probe", "probe", expectation, twin=twin)
            case "replay":
                return next(self._replays, None)
        return None

    def _of_url(self, one: UrlRequest) -> Call:
        def with_variables(text: str) -> str:
            return VARIABLE.sub(lambda found: self.credentials.variables[found[1]], text)

        headers = tuple((name, with_variables(value)) for name, value in one.headers)
        request = requests.Request(one.method, one.path, headers, with_variables(one.body).encode())
        expectation = expectations.status_is(one.expect) if one.expect else expectations.SUCCEEDS
        twin = BaselineCall(_plain_bytes(self._baseline, request), expectation) if self._baseline else None
        path = self.address.prefix + one.path or "/"
        data = _plain_bytes(self.address, request)
        return Call(one.name, one.method, path, data, expectation=expectation, twin=twin)

    def event(self) -> tuple[Call, str] | None:
        """A canary event and its company; None where there is no tenant to send it for."""
        company = next(self._companies, None)
        if company is None:
            return None
        event_id = new_id("event")
        fields = {
            "company_id": company,
            "event_type": "load.canary",
            "aggregate_key": f"load-{event_id[:8]}",
            "payload": {"run": self.plan.run},
        }
        # the baseline's event has another id: both releases may share a database
        ids = [""] * 2 if "event_id" in current().lacking else [event_id, new_id("event")]
        sent = [self._post("/events", {**fields, **({"event_id": one} if one else {})}) for one in ids]
        twin = self._twin(sent[1], expectations.accepted_event(ids[1]))
        expectation, writes = expectations.accepted_event(ids[0]), Acknowledgement(EVENT, ids[0])
        call = self._call("POST /events", sent[0], "event", "event", expectation, twin=twin, writes=writes)
        return call, company

    @property
    def has_event_status(self) -> bool:
        """Whether the deployment says what became of an event."""
        return "/events/{event_id}" not in current().lacking

    def event_status(self, event_id: str, company: str, *, is_new: bool = False) -> Call:
        """The question what became of a company's event; is_new: it may not be found yet, which is no sample."""
        path = path_of(f"/events/{event_id}", company)
        if self.credentials.hmac_secret:
            request = requests.signed_get(path, self.credentials.hmac_secret, self._now())
        else:
            request = requests.token_get(path, self.credentials.admin_jwt)
        twin = self._twin(request, expectations.EVENT_STATUS)
        call = self._call(
            "GET /events/{id}", request, "canary", "status", expectations.EVENT_STATUS, url="/events/{id}", twin=twin
        )
        return replace(call, no_sample=frozenset({404})) if is_new else call

    def _may_act_for(self, company: str) -> bool:
        """Whether what is sent for the company can be for no other: a service may take the tenant from the token."""
        token = "" if self.credentials.hmac_secret else self.credentials.admin_jwt
        return not token or not requests.is_of_another_company(token, company)

    def _now(self) -> int:
        """Unix seconds by the target's clock."""
        return int(time.time() + self.plan.clock_offset_s)

    def _post(self, path: str, fields: Mapping[str, object]) -> requests.Request:
        if self.credentials.hmac_secret:
            return requests.signed_post_v2(path, fields, self.credentials.hmac_secret, self._now())
        return requests.token_post(path, requests.encode_body(fields), self.credentials.admin_jwt)

    def _call(
        self,
        name: str,
        request: requests.Request,
        scenario: str,
        operation: str,
        expectation: expectations.Expectation,
        *,
        url: str = "",
        expected: frozenset[int] = frozenset(),
        twin: BaselineCall | None = None,
        writes: Acknowledgement | None = None,
    ) -> Call:
        data = _bytes(self.address, request)
        where = url or request.path
        return Call(name, request.method, where, data, expected, scenario, operation, expectation, twin, writes)

    def _twin(self, request: requests.Request, expectation: expectations.Expectation) -> BaselineCall | None:
        """The call for the baseline; none where there is no baseline. Replay calls are limited, and have none."""
        return BaselineCall(_bytes(self._baseline, request), expectation) if self._baseline else None

    def left_of(self, company: str) -> Call | None:
        """The next replay call of that company; None where it has made all."""
        return next(self._left[company], None)

    def _all_replays(self, tenants: tuple[Tenant, ...]) -> dict[str, Iterator[Call]]:
        """By company three calls, never more: what the rate limit allows in five minutes from one address. All
        companies have their first call before one has its second.

        Two of the three are real runs, of one item each; the third is a dry run, or a duplicate, by turns. Without
        tenants of our own, three dry runs for the test company, of which drills may have used up the limit and whose
        flags may be off; none where that company is spared. Where no dry runs are claimed, one could be carried out.
        """
        company = self.plan.test_company_id
        of_test_company = company and self.plan.test_company_replays and has_dry_runs() and self._may_act_for(company)
        if not tenants and of_test_company and self.index == 0:
            dry_run = Tenant(company), "", TEST_COMPANY_REFUSALS, "dry run"
            return {company: (self._replay(*dry_run) for _ in range(REPLAYS_EACH))}
        able = enumerate(one for one in tenants if one.replays)
        return {tenant.id: self._three(tenant, is_dry=number % 2 == 0) for number, tenant in able}

    def _three(self, tenant: Tenant, *, is_dry: bool) -> Iterator[Call]:
        keys = [f"{self.plan.run}-{tenant.id}-{turn}" for turn in "ab"]
        if is_dry and has_dry_runs():
            yield self._replay(tenant, "", PAUSED, "dry run")
        yield self._replay(tenant, keys[0], REPLAY_REFUSALS, "real run")
        if not is_dry:
            yield self._replay(tenant, keys[0], REPLAY_REFUSALS, "duplicate")
        yield self._replay(tenant, keys[1], REPLAY_REFUSALS, "real run")

    def _replay(self, tenant: Tenant, key: str, refusals: frozenset[str], what: str) -> Call:
        company = tenant.id
        more: dict[str, object] = {"idempotency_key": key} if key else {"dry_run": True}
        request = self._post("/dlq-replay", requests.replay_fields(company, max=1, **more))
        expectation = expectations.replayed(company, key, refusals=refusals, waiting=tenant.items)
        writes = Acknowledgement(RUN, key) if key else None
        expected = frozenset(expectations.REFUSED[code] for code in refusals)
        name = f"POST /dlq-replay ({what})"
        call = self._call(name, request, "replay", "replay", expectation, expected=expected, writes=writes)
        return replace(call, company=company)


def _bytes(address: Address, request: requests.Request) -> bytes:
    """A request of the contract in the deployment's words."""
    return _plain_bytes(address, on_the_wire(request))


def _plain_bytes(address: Address, sent: requests.Request) -> bytes:
    given = {name.lower() for name, _ in sent.headers}
    own = [(name, value) for name, value in OWN_HEADERS.items() if name.lower() not in given]
    return request_bytes(address, sent.method, sent.path, [*sent.headers, *own], sent.body)
