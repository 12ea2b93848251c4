"""The load profiles of a deployment, and the thresholds of the checklist."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from loadtests.plan import LoadPlan, Stream
from loadtests.thresholds.file import Stage, ThresholdsFile

CHECKLIST_THRESHOLDS = """{
  thresholds: {
    http_req_failed: ['rate<0.02'],
    http_req_duration: ['p(95)<2500'],
    outbox_lag_ms: ['p(95)<5000', 'avg<2000'],
    agent_success: ['rate>0.98'],
    dlq_items_count: ['count<10'],
    outbox_drained: ['rate>0.95'],
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
"""The checklist's thresholds, and the same for each operation: a few slow calls are lost among all the others. Each
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

QUICK_STREAMS = (Stream("event", 18.0), Stream("probe", 25.0), Stream("replay", 8.0))
"""In 10 s: 180 events (160 decide a rate of 98 %), 250 probes, 80 replays (63 decide a p95), and one or two questions
an event. The 53 replayed items come on top of the deliveries.
"""

DEFAULT_STAGES = (Stage(30.0, 5), Stage(60.0, 10), Stage(10.0, 0))
"""The checklist's smoke test: up to 5 users, then to 10, then out."""

TENANTS: Mapping[str, int] = {"quick": 60, "default": 60}
"""Companies of a run: three replay calls each."""


def resolve(plan: LoadPlan, file: ThresholdsFile) -> LoadPlan:
    """Give the plan its load: the file's stages or vus (closed model), those asked for, or the profile's.

    Without a word about users the model is open: arrivals at a fixed rate, which a stalled server cannot slow down.
    """
    plan = dataclasses.replace(plan, tenants_wanted=0 if plan.url_only else TENANTS[plan.profile])
    think_s = 0.0 if plan.url_only else plan.think_s
    if file.stages:
        return dataclasses.replace(plan, streams=(), stages=file.stages, think_s=think_s)
    if file.vus or plan.vus:
        duration_s = file.duration_s or plan.duration_s
        return dataclasses.replace(
            plan, streams=(), vus=plan.vus or file.vus or 1, duration_s=duration_s, think_s=think_s
        )
    if plan.url_only:
        return dataclasses.replace(plan, streams=(Stream("url", plan.rate_per_s),))
    if plan.profile == "default":
        return dataclasses.replace(plan, streams=(), stages=DEFAULT_STAGES)
    return dataclasses.replace(plan, streams=plan.streams or QUICK_STREAMS)
