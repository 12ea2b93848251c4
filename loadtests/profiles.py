"""The load profiles of a deployment, and the thresholds of the checklist."""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.plan import Stream
from loadtests.thresholds_file import Stage

CHECKLIST_THRESHOLDS = """{
  thresholds: {
    http_req_failed: ['rate<0.02'],
    http_req_duration: ['p(95)<2500'],
    outbox_lag_ms: ['p(95)<5000', 'avg<2000'],
    agent_success: ['rate>0.98'],
    dlq_items_count: ['count<10'],
  },
}
"""

QUICK_STREAMS = (Stream("event", 20.0), Stream("probe", 30.0), Stream("replay", 3.0))
"""In 10 s: 200 events (149 decide a rate of 98 %), 300 probes, 30 replays, and one or two questions an event."""

DEFAULT_STAGES = (Stage(30.0, 5), Stage(60.0, 10), Stage(10.0, 0))
"""The checklist's smoke test: up to 5 users, then to 10, then out."""

TENANTS: Mapping[str, int] = {"quick": 10, "default": 60}
"""Companies of a run: three replay calls each."""
