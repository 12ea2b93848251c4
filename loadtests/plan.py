"""The plan of a run: everything that master and workers must agree on, as one JSON document without a secret.

Secrets come from each process's own environment; a plan may be shown, kept and sent.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from loadtests.engine.metrics import untaggable
from loadtests.scenario import Executor, Scenario, Stage
from loadtests.thresholds.language import MetricKey


@dataclass(frozen=True, slots=True)
class Tenant:
    """A company of this run, with the ids of its seeded DLQ items; `replays`: three replay calls may be made for it."""

    id: str
    items: tuple[str, ...] = ()
    replays: bool = True


@dataclass(frozen=True, slots=True)
class UrlRequest:
    """A request of `--url`; `path` is appended to the URL. expect: the status of success, 0: any of 200..299."""

    name: str
    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    expect: int = 0


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What to do. Seconds everywhere. `vus`: so many users instead of the load of file or profile.

    A request may take `timeout_s`; at the end all that is under way has `grace_s`, as k6's gracefulStop.
    release: the one that is meant, empty where any is.
    rps: requests a second of all processes together, 0: no limit. setup_s: what making the companies may take, 0: the
    same.
    baseline_url: the previous release, which gets the same calls at the same time; slower_percent, failed_percent: what
    the release may be slower, and may fail more often. clock_offset_s: how far the target's clock is before ours.
    `lease` goes into the names of the companies (see `gates.deployment.tenants.leftovers`): a mark, and epoch seconds.
    drilled: the file that lists the companies of drills beside the load: their dead letters are not counted.
    The run ends when it is no longer a child of the process `parent` (0: whoever started it).
    `most_exact` values of each metric are kept as measured (8 bytes each); a metric with more goes over to a histogram.
    """

    base_url: str
    thresholds_name: str = "default"
    thresholds_text: str = ""
    run: str = "run"
    profile: str = "quick"
    scenarios: tuple[Scenario, ...] = ()
    vus: int = 0
    rps: float = 0.0
    setup_s: float = 0.0
    keeps_connections: bool = True
    checks_certificates: bool = True
    think_s: float = 0.2
    duration_s: float = 10.0
    most_s: float = 30.0
    timeout_s: float = 10.0
    grace_s: float = 30.0
    max_open: int = 2000
    workers: int = 0
    expect_workers: int = 0
    master_host: str = "127.0.0.1"
    master_port: int = 0
    connect_s: float = 30.0
    test_outbox: bool = True
    test_dlq: bool = True
    test_agents: bool = True
    test_company_id: str = ""
    test_company_replays: bool = True
    tenants_wanted: int = 0
    tenants: tuple[Tenant, ...] = ()
    early_abort: bool = True
    run_on: bool = True
    compat_k6: bool = False
    detail: bool = True
    url_only: bool = False
    requests_name: str = ""
    requests_text: str = ""
    requests: tuple[UrlRequest, ...] = ()
    rate_per_s: float = 50.0
    keep_tenants: bool = False
    lease: str = "t0"
    drilled: str = ""
    parent: int = 0
    most_exact: int = 20_000_000
    baseline_url: str = ""
    release: str = ""
    slower_percent: float = 25.0
    failed_percent: float = 2.0
    clock_offset_s: float = 0.0
    notes: tuple[str, ...] = field(default=())

    @property
    def is_open(self) -> bool:
        """Whether all arrivals follow a schedule instead of waiting for answers."""
        return all(one.executor is Executor.ARRIVALS for one in self.scenarios)

    @property
    def is_even(self) -> bool:
        """Whether the load is the same from the begin to the end, so that nothing but the target makes it slower."""
        even = all(stage.target == one.level for one in self.scenarios for stage in one.stages)
        return self.is_open and even and len({(one.start_s, one.end_s) for one in self.scenarios}) <= 1

    @property
    def is_url(self) -> bool:
        """Whether any URL is loaded, without knowledge of what stands behind it."""
        return self.url_only


REPLAYS_EACH = 3
"""Replay calls that the rate limit allows a company from one address in five minutes."""


def replays_of(plan: LoadPlan) -> int:
    """How many replay calls the companies of a plan allow."""
    if plan.tenants:
        return REPLAYS_EACH * sum(tenant.replays for tenant in plan.tenants)
    return REPLAYS_EACH if plan.test_company_id and plan.test_company_replays else 0


def no_sample(plan: LoadPlan, key: MetricKey) -> str:
    """Why no sample with the tags of a key can be taken in a run of this plan; empty where one can."""
    if ("operation", "replay") in key.tags and not replays_of(plan):
        few = "no replay call could be made: they are limited to three a company, and this run has none of its own"
        return f"{few} (DATABASE_URL and dlq.replay.enabled give it some)"
    return untaggable(key, {name for one in plan.scenarios for name, _ in one.labels})


def dump_plan(plan: LoadPlan) -> str:
    return json.dumps(asdict(plan))


def load_plan(text: str) -> LoadPlan:
    """The plan from JSON. Raise ValueError, TypeError or KeyError on anything else."""
    values: dict[str, Any] = json.loads(text)
    values["scenarios"] = tuple(_scenario(one) for one in values.get("scenarios", ()))
    values["tenants"] = tuple(
        Tenant(one["id"], tuple(one["items"]), one["replays"]) for one in values.get("tenants", ())
    )
    values["requests"] = tuple(
        UrlRequest(**{**one, "headers": tuple((name, value) for name, value in one["headers"])})
        for one in values.get("requests", ())
    )
    values["notes"] = tuple(values.get("notes", ()))
    return LoadPlan(**values)


def _scenario(values: dict[str, Any]) -> Scenario:
    values["executor"] = Executor(values["executor"])
    values["stages"] = tuple(Stage(**one) for one in values["stages"])
    values["labels"] = tuple((name, value) for name, value in values["labels"])
    return Scenario(**values)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What signs the requests; each process reads its own."""

    hmac_secret: str = field(default="", repr=False)
    admin_jwt: str = field(default="", repr=False)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)


def credentials_from(environ: Mapping[str, str]) -> Credentials:
    """The first HMAC secret and the admin token of the contract's variables; and all, for requests that name some."""
    secret = environ.get("TRANSBOT_HMAC_SECRET", "").partition(",")[0]
    return Credentials(secret, environ.get("ADMIN_JWT", ""), environ)
