"""The load profiles of a deployment, and the thresholds of the checklist."""

import dataclasses
from collections.abc import Mapping

from loadtests.plan import LoadPlan
from loadtests.scenario import Executor, Scenario, Stage, steady
from loadtests.thresholds.file import ThresholdsFile

CHECKLIST_THRESHOLDS = """{
  thresholds: {
    http_req_failed: ['rate<0.02'],
    http_req_duration: ['p(95)<2500'],
    outbox_lag_ms: ['p(95)<5000', 'avg<2000'],
    agent_success: ['rate>0.98'],
    dlq_items_count: ['count<10'],
    outbox_drained: ['rate>0.95'],
    events_lost: ['count<1'],
    runs_lost: ['count<1'],
    answers_mixed: ['count<1'],
    companies_failing: ['count<1'],
    db_connections_growth: ['count<10'],
    memory_growth_mb: ['count<50'],
    'http_req_duration{operation:replay}': ['p(95)<2500'],
    'http_req_duration{operation:event}': ['p(95)<2500'],
    'http_req_duration{operation:status}': ['p(95)<2500'],
    'http_req_duration{operation:probe}': ['p(95)<2500'],
    'checks{operation:replay}': ['rate>0.95'],
    'checks{operation:event}': ['rate>0.98'],
    'checks{operation:status}': ['rate>0.98'],
    'checks{operation:probe}': ['rate>0.98'],
  },
}
"""
"""The checklist's thresholds, and the same for each operation, since a few slow calls do not show among all. Each
company may replay only three times, so the rate of replays has a limit that 63 calls can decide.
"""

URL_THRESHOLDS = """{
  thresholds: {
    http_req_failed: ['rate<0.02'],
    http_req_duration: ['p(95)<2500'],
  },
}
"""
"""Of the checklist's thresholds those that any URL has."""

QUICK = (steady("event", 18.0), steady("probe", 25.0), steady("replay", 8.0))
"""In 10 s: 180 events (160 decide a rate of 98 %), 250 probes, 80 replays (63 decide a p95), and one or two questions
an event. The 40 replayed items come on top of the deliveries.
"""

DEFAULT = (Scenario(Executor.USERS, 1, (Stage(30.0, 5), Stage(60.0, 10), Stage(10.0, 0))),)
"""The checklist's smoke test: up to 5 users, then to 10, then out."""

TENANTS: Mapping[str, int] = {"quick": 60, "default": 60}
"""Companies of a run: three replay calls each."""


def resolve(plan: LoadPlan, file: ThresholdsFile) -> LoadPlan:
    """Give the plan its load: the users asked for, else the file's, else the profile's.

    Without a word about users the model is open: arrivals at a fixed rate, which a stalled server cannot slow down.
    """
    plan = dataclasses.replace(
        plan,
        tenants_wanted=0 if plan.url_only else TENANTS[plan.profile],
        think_s=0.0 if plan.url_only else plan.think_s,
        rps=file.rps or plan.rps,
        setup_s=file.setup_s or plan.setup_s,
        keeps_connections=plan.keeps_connections and not file.new_connections,
        checks_certificates=plan.checks_certificates and not file.any_certificate,
    )
    if plan.vus or file.users:
        scenarios: tuple[Scenario, ...] = (Scenario(Executor.USERS, plan.vus or file.users),)
    elif file.scenarios:
        grace_s = max(one.grace_s for one in file.scenarios)
        return dataclasses.replace(plan, scenarios=file.scenarios, grace_s=grace_s)
    elif plan.url_only:
        scenarios = (steady("", plan.rate_per_s),)
    else:
        scenarios = plan.scenarios or (DEFAULT if plan.profile == "default" else QUICK)
    return dataclasses.replace(plan, scenarios=scenarios)
