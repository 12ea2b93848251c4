"""The metrics that a run can measure, and their types: k6's built-in ones and ours."""

from collections.abc import Collection, Mapping

from loadtests.engine.sinks import CounterSink, GaugeSink, RateSink, Sink, TrendSink
from loadtests.thresholds.language import MetricKey, MetricType

TIMINGS = (
    *("http_req_duration", "http_req_blocked", "http_req_connecting", "http_req_tls_handshaking"),
    *("http_req_sending", "http_req_waiting", "http_req_receiving"),
)
"""Trends of one request, in milliseconds."""

TYPES: Mapping[str, MetricType] = {
    **dict.fromkeys((*TIMINGS, "iteration_duration", "outbox_lag_ms", "outbox_oldest_age_ms"), MetricType.TREND),
    **dict.fromkeys(("schedule_lateness_ms", "null_request_ms", "loop_lateness_ms"), MetricType.TREND),
    **dict.fromkeys(("http_reqs", "data_sent", "data_received"), MetricType.COUNTER),
    **dict.fromkeys(("iterations", "dropped_iterations", "expected_refusals"), MetricType.COUNTER),
    **dict.fromkeys(("events_lost", "runs_lost", "dlq_items_count"), MetricType.COUNTER),
    **dict.fromkeys(("answers_mixed", "companies_failing", "limited"), MetricType.COUNTER),
    **dict.fromkeys(("db_connections_growth", "memory_growth_mb"), MetricType.COUNTER),
    **dict.fromkeys(("http_req_failed", "checks", "agent_success", "outbox_drained"), MetricType.RATE),
    **dict.fromkeys(("baseline_slower_p50", "baseline_slower_p95"), MetricType.RATE),
    **dict.fromkeys(("baseline_failed", "baseline_spared", "baseline_answered", "baseline_differs"), MetricType.RATE),
    **dict.fromkeys(("vus", "vus_max", "outbox_backlog", "dlq_items"), MetricType.GAUGE),
    **dict.fromkeys(("db_connections", "memory_mb"), MetricType.GAUGE),
}

_OF_REQUESTS = frozenset({"name", "method", "url", "scenario", "operation", "status", "expected_response", "error"})
_TAGS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys((*TIMINGS, "http_reqs", "http_req_failed", "expected_refusals"), _OF_REQUESTS),
    **dict.fromkeys(("data_sent", "data_received"), _OF_REQUESTS),
    "checks": _OF_REQUESTS | {"check"},
    "outbox_lag_ms": frozenset({"source"}),
}
_OF_ITERATIONS = frozenset((*_TAGS, "iterations", "iteration_duration", "dropped_iterations")) - {"outbox_lag_ms"}


def untaggable(key: MetricKey, labels: Collection[str]) -> str:
    """Why no sample of a metric can carry a tag of the key: its zero is then none. Empty where all can be carried.

    labels: names of the tags of scenarios.
    """
    known = _TAGS.get(key.name, frozenset()) | frozenset(labels if key.name in _OF_ITERATIONS else ())
    other = [name for name, _ in key.tags if name not in known]
    return f"nothing here has the tag {other[0]!r}; there are: {', '.join(sorted(known)) or 'none'}" if other else ""


_SINKS: Mapping[MetricType, type[Sink]] = {
    MetricType.COUNTER: CounterSink,
    MetricType.GAUGE: GaugeSink,
    MetricType.RATE: RateSink,
    MetricType.TREND: TrendSink,
}


def empty_sink(kind: MetricType) -> Sink:
    """A sink of that type without samples."""
    return _SINKS[kind]()
