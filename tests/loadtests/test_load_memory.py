"""The memory of the target through a run: a leak grows in every part of it, a cache that fills at once does not."""

from collections.abc import Sequence

import pytest

from gates.deployment.http.metrics import MEMORY_METRIC
from loadtests.engine.memory import MemoryWatch
from loadtests.engine.samples import Samples
from loadtests.engine.sinks import CounterSink
from loadtests.judgement.trend import LEAST_VALUES
from loadtests.thresholds.language import MetricKey
from tests.small_target import serving

MB = 1_000_000
LOOKS = 21


def watched(megabytes: Sequence[float]) -> tuple[float, str]:
    """The growth that is measured, and why none is."""
    values = iter(megabytes)
    samples = Samples()
    text = "# TYPE x gauge\nprocess_resident_memory_bytes {}\n"
    with serving(lambda _path: (200, text.format(next(values) * MB).encode())) as url:
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


@pytest.mark.parametrize("text", ["outbox_pending 1", *(f"{MEMORY_METRIC} {v}" for v in ("NaN", "+Inf", "0", "-1"))])
def test_metrics_without_a_memory_that_can_be_are_unknown(text: str) -> None:
    """No reading is no memory that stands still, and neither is one that compares with nothing."""
    with serving(lambda _path: (200, text.encode())) as url:
        watch = MemoryWatch(url, Samples())
        for _ in range(LOOKS):
            watch.poll()
        assert watch.finish().startswith("0 readings")


def test_a_target_that_does_not_answer_is_unknown() -> None:
    """Nothing was read."""
    watch = MemoryWatch("http://127.0.0.1:1", Samples())
    watch.poll()
    assert watch.finish().startswith("0 readings")
