"""Feeds Locust's own statistics in bulk, for its HTML report. Its numbers are rounded and never judged."""

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from loadtests.engine.samples import RequestGroup


def feed(stats: Any, groups: Iterable[RequestGroup]) -> None:
    """Add what a report brought to Locust's entries."""
    now = time.time()
    for group in groups:
        tags = dict(group.tags)
        entry = stats.get(tags["name"], tags["method"])
        for one in (entry, stats.total):
            _add(one, group, now)


def _add(entry: Any, group: RequestGroup, now: float) -> None:
    durations = group.timings["http_req_duration"]
    if not durations:
        return
    entry.num_requests += len(durations)
    entry.num_reqs_per_sec[int(now)] += len(durations)
    entry.last_request_timestamp = now
    entry.total_response_time += sum(durations)
    low, high = min(durations), max(durations)
    entry.min_response_time = low if entry.min_response_time is None else min(entry.min_response_time, low)
    entry.max_response_time = max(entry.max_response_time, high)
    entry.total_content_length += group.received
    for value, count in Counter(map(_round, durations)).items():
        entry.response_times[value] += count
    if group.failed:
        entry.num_failures += len(durations)
        entry.num_fail_per_sec[int(now)] += len(durations)


def _round(value: float) -> int:
    if value < 100:
        return round(value)
    return round(value, -1 if value < 1000 else -2).__int__()
