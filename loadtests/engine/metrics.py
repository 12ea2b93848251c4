"""The metrics that a run can measure, and their types: k6's built-in ones and ours."""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.engine.sinks import CounterSink, GaugeSink, RateSink, Sink, TrendSink
from loadtests.thresholds.language import MetricType

TIMINGS = (
    "http_req_duration",
    "http_req_blocked",
    "http_req_connecting",
    "http_req_tls_handshaking",
    "http_req_sending",
    "http_req_waiting",
    "http_req_receiving",
)
"""Trends of one request, in milliseconds."""

TYPES: Mapping[str, MetricType] = {
    **dict.fromkeys(TIMINGS, MetricType.TREND),
    "http_reqs": MetricType.COUNTER,
    "http_req_failed": MetricType.RATE,
    "data_sent": MetricType.COUNTER,
    "data_received": MetricType.COUNTER,
    "iterations": MetricType.COUNTER,
    "iteration_duration": MetricType.TREND,
    "dropped_iterations": MetricType.COUNTER,
    "checks": MetricType.RATE,
    "vus": MetricType.GAUGE,
    "vus_max": MetricType.GAUGE,
    "outbox_lag_ms": MetricType.TREND,
    "outbox_oldest_age_ms": MetricType.TREND,
    "outbox_backlog": MetricType.GAUGE,
    "agent_success": MetricType.RATE,
    "dlq_items": MetricType.GAUGE,
    "dlq_items_count": MetricType.COUNTER,
    "outbox_drained": MetricType.RATE,
    **dict.fromkeys(("events_lost", "runs_lost"), MetricType.COUNTER),
    **dict.fromkeys(("answers_mixed", "companies_failing", "limited"), MetricType.COUNTER),
    "db_connections": MetricType.GAUGE,
    "db_connections_growth": MetricType.COUNTER,
    "memory_mb": MetricType.GAUGE,
    "memory_growth_mb": MetricType.COUNTER,
    **dict.fromkeys(("baseline_slower_p50", "baseline_slower_p95"), MetricType.RATE),
    **dict.fromkeys(("baseline_failed", "baseline_spared", "baseline_answered", "baseline_differs"), MetricType.RATE),
    "expected_refusals": MetricType.COUNTER,
    "schedule_lateness_ms": MetricType.TREND,
    "null_request_ms": MetricType.TREND,
    "loop_lateness_ms": MetricType.TREND,
}

_SINKS: Mapping[MetricType, type[Sink]] = {
    MetricType.COUNTER: CounterSink,
    MetricType.GAUGE: GaugeSink,
    MetricType.RATE: RateSink,
    MetricType.TREND: TrendSink,
}


def empty_sink(kind: MetricType) -> Sink:
    """A sink of that type without samples."""
    return _SINKS[kind]()
