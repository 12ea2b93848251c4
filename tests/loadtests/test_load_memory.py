"""The memory of the target through a run: a leak grows in every part of it, a cache that fills at once does not."""

from __future__ import annotations

import http.server
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from loadtests.memory import MemoryWatch
from loadtests.samples import Samples
from loadtests.sinks import CounterSink
from loadtests.thresholds import MetricKey
from loadtests.trend import LEAST_VALUES

MB = 1_000_000
LOOKS = 21


@contextmanager
def showing(lines: Callable[[], str]) -> Iterator[str]:
    """A target whose /metrics says what `lines` gives."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = lines().encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def watched(megabytes: Sequence[float]) -> tuple[float, str]:
    """The growth that is measured, and why none is."""
    values = iter(megabytes)
    samples = Samples()
    with showing(lambda: f"# TYPE x gauge\nprocess_resident_memory_bytes {next(values) * MB}\n") as url:
        watch = MemoryWatch(url, samples)
        for _ in megabytes:
            watch.poll()
        why = watch.finish()
    sink = samples.select(MetricKey("memory_growth_mb"))
    assert isinstance(sink, CounterSink)
    return sink.total, why


@pytest.mark.parametrize(
    ("megabytes", "least", "most"),
    [
        pytest.param([100.0 + 10 * n for n in range(LOOKS)], 100, 200, id="a leak"),
        pytest.param([100.0] * LOOKS, 0, 0, id="flat"),
        pytest.param([100.0] * 3 + [300.0] * (LOOKS - 3), 0, 49, id="a cache that fills at once"),
        pytest.param([100.0 + 40 * (n % 4) for n in range(LOOKS)], 0, 49, id="a collector's sawtooth"),
        pytest.param([100.0] * (LOOKS - 3) + [300.0] * 3, 0, 49, id="one jump at the end"),
        pytest.param([100.0 if n % 2 else 400.0 for n in range(LOOKS)], 0, 49, id="two instances in turn"),
        pytest.param([(100.0, 400.0)[n % 2] + 10 * n for n in range(LOOKS)], 100, 200, id="two instances that leak"),
    ],
)
def test_only_memory_that_grows_all_the_time_is_growth(megabytes: Sequence[float], least: float, most: float) -> None:
    """The limit is 50 MB."""
    growth, why = watched(megabytes)
    assert not why
    assert least <= growth <= most


def test_few_readings_are_no_growth_of_zero() -> None:
    """Unknown, and it says how many there were."""
    _, why = watched([100.0] * (LEAST_VALUES - 1))
    assert why.startswith(f"{LEAST_VALUES - 1} readings")


def test_metrics_without_memory_and_no_metrics_at_all_are_unknown() -> None:
    """Neither is a memory that stands still."""
    counter = itertools.count()
    with showing(lambda: f"outbox_pending {next(counter)}\n") as url:
        watch = MemoryWatch(url, Samples())
        for _ in range(LOOKS):
            watch.poll()
        assert watch.finish().startswith("0 readings")
    watch = MemoryWatch("http://127.0.0.1:1", Samples())
    watch.poll()
    assert watch.finish().startswith("0 readings")
