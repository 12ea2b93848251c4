"""A small metrics registry in the Prometheus text format: counters and histograms of one process. No I/O."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence

Labels = tuple[str, ...]
LATENCY_BUCKETS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def sample(name: str, names: Sequence[str], values: Sequence[str], number: float) -> str:
    """One line of the text format."""
    labels = ",".join(f'{n}="{v.translate(_ESCAPES)}"' for n, v in zip(names, values, strict=True))
    return f"{name}{{{labels}}} {number:.17g}" if labels else f"{name} {number:.17g}"


def heading(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


class Counter:
    """Counts by labels; label values come from closed sets, so that the number of series is bounded."""

    def __init__(self, name: str, text: str, labels: Labels = ()) -> None:
        self.name, self.text, self.labels = name, text, labels
        self._counts: dict[Labels, int] = {} if labels else {(): 0}

    def add(self, *values: str, amount: int = 1) -> None:
        self._counts[values] = self._counts.get(values, 0) + amount

    def lines(self) -> list[str]:
        found = [sample(self.name, self.labels, v, n) for v, n in sorted(self._counts.items())]
        return heading(self.name, "counter", self.text) + found


class Histogram:
    """Cumulative buckets, sum and count by labels, in seconds."""

    def __init__(self, name: str, text: str, labels: Labels) -> None:
        self.name, self.text, self.labels = name, text, labels
        self._buckets: dict[Labels, list[int]] = defaultdict(lambda: [0] * (len(LATENCY_BUCKETS_S) + 1))
        self._sums: dict[Labels, float] = defaultdict(float)

    def observe(self, seconds: float, *values: str) -> None:
        self._buckets[values][bisect_left(LATENCY_BUCKETS_S, seconds)] += 1
        self._sums[values] += seconds

    def lines(self) -> list[str]:
        found = heading(self.name, "histogram", self.text)
        for values, counts in sorted(self._buckets.items()):
            total = 0
            for bound, count in zip((*LATENCY_BUCKETS_S, float("inf")), counts, strict=True):
                total += count
                edge = "+Inf" if bound == float("inf") else f"{bound:g}"
                found.append(sample(f"{self.name}_bucket", (*self.labels, "le"), (*values, edge), total))
            found.append(sample(f"{self.name}_sum", self.labels, values, self._sums[values]))
            found.append(sample(f"{self.name}_count", self.labels, values, total))
        return found


class Metrics:
    """The counters of one process."""

    def __init__(self) -> None:
        self.replays = Counter("replay_requests_total", "Requests to POST /dlq-replay by outcome.", ("outcome",))
        self.items = Counter("replay_items_total", "Dead letters moved to the outbox by replays.")
        self.events = Counter("events_total", "Events accepted by path.", ("path",))
        self.requests = Counter(
            "http_requests_total", "Answers by route, method and status.", ("route", "method", "status")
        )
        self.errors = Counter("http_errors_total", "Refusals and failures by code.", ("code",))
        self.latency = Histogram("http_request_duration_seconds", "Time to answer by route.", ("route",))

    def lines(self) -> list[str]:
        parts = (self.replays, self.items, self.events, self.requests, self.errors, self.latency)
        return [line for part in parts for line in part.lines()]
