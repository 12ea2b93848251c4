"""A gate without CPU time blames nobody for its own delays, and excuses nobody for anything else."""

import contextlib
import os
import signal
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gates.deployment.pressure import CpuPressure
from loadtests.engine.null_requests import SERVER
from loadtests.engine.sinks import RateSink, Sink, TrendSink
from loadtests.judgement.starvation import excuse
from loadtests.judgement.verdict import ThresholdOutcome, ThresholdResult, Why, judge
from loadtests.thresholds.language import MetricKey, Threshold, parse_expression
from tests.loadtests.fake_target import Behaviour, target
from tests.loadtests.load_process import Load, at_once, children_of, finish, messages, start, verdicts
from tests.loadtests.test_load_runs import DURATION, FAILED, url_plan
from tests.waiting import until


def trend(*parts: tuple[int, float]) -> TrendSink:
    """Samples: for each value, the given number of them."""
    return TrendSink(array("d", [value for count, value in parts for _ in range(count)]))


def excused(metric: str, source: str, sink: Sink, null: TrendSink) -> ThresholdResult:
    key, threshold = MetricKey(metric), Threshold(parse_expression(source))
    return excuse(judge(key, threshold, sink, 10.0), key, threshold, sink, null)


SOUND = trend((195, 1.0), (5, 20.0))
QUICK = trend((990, 1.0), (10, 20.0))
STARVED = trend((150, 50.0), (50, 1800.0))
LATENCY = "http_req_duration"


@pytest.mark.parametrize(
    ("source", "sink", "null", "expected"),
    [
        ("p(95)<2500", trend((500, 3000.0)), SOUND, ThresholdOutcome.FAIL),
        ("p(95)<2500", trend((500, 3000.0)), STARVED, ThresholdOutcome.UNKNOWN),
        ("p(95)<2500", trend((500, 10_000.0)), STARVED, ThresholdOutcome.FAIL),  # a dead target is dead, whoever asks
        ("p(95)<2500", trend((400, 100.0), (100, 9000.0)), STARVED, ThresholdOutcome.FAIL),
        ("p(95)<2500", trend((465, 100.0), (35, 2510.0)), SOUND, ThresholdOutcome.UNKNOWN),  # 20 ms more might be ours
        ("p(95)<2500", trend((930, 100.0), (70, 3000.0)), QUICK, ThresholdOutcome.FAIL),  # a slow tail stays seen
        ("p(95)<2500", trend((930, 100.0), (70, 2510.0)), QUICK, ThresholdOutcome.UNKNOWN),
        ("p(95)<2500", trend((930, 100.0), (70, 3000.0)), STARVED, ThresholdOutcome.UNKNOWN),
        (
            "p(95)<2500",
            trend((500, 3000.0)),
            trend((19, 1.0)),
            ThresholdOutcome.UNKNOWN,
        ),  # nobody measured the instrument
        ("p(95)<2500", trend((500, 1800.0)), STARVED, ThresholdOutcome.PASS),  # starving only adds
        ("avg<1000", trend((500, 1300.0)), STARVED, ThresholdOutcome.UNKNOWN),
        ("avg<1000", trend((500, 1300.0)), SOUND, ThresholdOutcome.FAIL),
        ("avg<1000", trend((500, 2500.0)), STARVED, ThresholdOutcome.FAIL),
        ("max<1000", trend((499, 1.0), (1, 2700.0)), STARVED, ThresholdOutcome.UNKNOWN),
        ("max<1000", trend((499, 1.0), (1, 2900.0)), STARVED, ThresholdOutcome.FAIL),
        ("med<1000", trend((500, 1500.0)), STARVED, ThresholdOutcome.UNKNOWN),
        ("p(99)<1000", trend((480, 1.0), (20, 1300.0)), SOUND, ThresholdOutcome.FAIL),
        ("p(100)<1000", trend((499, 1.0), (1, 1010.0)), SOUND, ThresholdOutcome.UNKNOWN),
        ("p(0)<1000", trend((500, 1300.0)), SOUND, ThresholdOutcome.FAIL),
    ],
)
def test_a_latency_fails_only_beyond_what_the_instrument_added(
    source: str, sink: TrendSink, null: TrendSink, expected: ThresholdOutcome
) -> None:
    """The limit is raised by what the null requests took; a pass stands, and a dead target fails."""
    one = excused(LATENCY, source, sink, null)
    assert one.verdict is expected, one.message
    assert (one.why is Why.STARVED) is (expected is ThresholdOutcome.UNKNOWN)


def test_a_failing_status_is_never_excused() -> None:
    """Whatever the gate suffered, it did not answer 500 in the target's place."""
    assert excused("http_req_failed", "rate<0.02", RateSink(30, 300), STARVED).verdict is ThresholdOutcome.FAIL
    assert excused("checks", "rate>0.98", RateSink(200, 300), STARVED).verdict is ThresholdOutcome.FAIL


def test_an_age_that_the_database_measured_is_not_excused() -> None:
    """The database's own measure does not depend on when the gate asks."""
    assert excused("outbox_oldest_age_ms", "max<5000", trend((60, 6000.0)), STARVED).verdict is ThresholdOutcome.FAIL


@contextmanager
def starved(process: Load, behaviour: Behaviour, stopped_s: float, running_s: float) -> Iterator[None]:
    """Lets the process run only now and then, from its first request on."""
    over = threading.Event()

    def take_turns() -> None:
        while not over.wait(0.01) and not behaviour.count:
            pass
        while not over.is_set() and process.poll() is None:
            process.send_signal(signal.SIGSTOP)
            over.wait(stopped_s)
            process.send_signal(signal.SIGCONT)
            over.wait(running_s)

    thread = threading.Thread(target=take_turns)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=10)


def run_starved(behaviour: Behaviour, folder: Path, stopped_s: float = 0.5, running_s: float = 0.1) -> dict[str, str]:
    """Verdicts of 3 s of load by a process that stands still most of the time; the limit is 400 ms."""
    with target(behaviour) as url:
        process = start(url_plan(url, duration_s=3.0, most_s=3.0, rate_per_s=100.0, timeout_s=6.0), folder)
        with starved(process, behaviour, stopped_s, running_s):
            result = finish(process, folder, timeout_s=120)
    assert result["facts"]["null_ms"]["p99"] > 300, result["facts"]
    return verdicts(result) | {"said": messages(result)}


def test_a_healthy_target_does_not_fail_under_a_starved_gate(tmp_path: Path) -> None:
    """Half of the latencies are above the limit, and none of it is the target's."""
    found = run_starved(Behaviour(), tmp_path)
    assert "fail" not in found.values(), found["said"]
    assert found[DURATION] == "unknown", found["said"]
    assert "the gate itself was slow" in found["said"]


BAD: dict[str, Callable[[], Behaviour]] = {
    "seconds late": lambda: Behaviour(delay_s=lambda _number: 3.5),
    "failing": lambda: Behaviour(status=lambda _number: 503),
    "dead": lambda: Behaviour(stall_at_s=0.3, stall_s=60.0),
}


def test_a_bad_target_fails_even_under_a_starved_gate(tmp_path: Path) -> None:
    """What is beyond anything that the gate added, and every failing status, is the target's."""
    for kind, found in at_once(BAD, lambda kind, folder: run_starved(BAD[kind](), folder), tmp_path):
        assert found[DURATION if kind == "seconds late" else FAILED] == "fail", (kind, found["said"])


def test_a_gate_that_stood_still_does_not_call_answers_missing(tmp_path: Path) -> None:
    """Stopped for longer than a request may take, it reads the answers that wait for it before it gives any up."""
    found = run_starved(Behaviour(delay_s=lambda _number: 0.05), tmp_path, stopped_s=7.0, running_s=60.0)
    assert found[FAILED] != "fail", found["said"]
    assert "http_req_failed rate 0," in found["said"]


def test_the_kernel_tells_of_pressure_or_is_left_out(tmp_path: Path) -> None:
    """Each figure stands alone; without the kernel's file it is left out."""
    assert CpuPressure(tmp_path).percent() == {}
    _kernel(tmp_path, "proc/self/cgroup", "0::/a\n")
    _kernel(tmp_path, "sys/fs/cgroup/a/cpu.stat", "usage_usec 5\nthrottled_usec 0\n")
    _kernel(tmp_path, "proc/pressure/cpu", "some avg10=1 avg60=1 avg300=1 total=0\nfull avg10=0 total=0\n")
    _kernel(tmp_path, "proc/self/schedstat", "1 0 1\n")
    meter = CpuPressure(tmp_path)
    _kernel(tmp_path, "sys/fs/cgroup/a/cpu.stat", "throttled_usec 9000000\n")
    _kernel(tmp_path, "proc/self/schedstat", "1 8000000000 1\n")
    found = meter.percent()
    assert set(found) == {"throttled_percent", "pressure_percent", "waiting_percent"}
    assert found["throttled_percent"] > found["waiting_percent"] > found["pressure_percent"] == 0


def test_a_cgroup_of_the_first_version_is_read(tmp_path: Path) -> None:
    """Its counter has another name, and counts nanoseconds."""
    _kernel(tmp_path, "proc/self/cgroup", "3:cpuset:/x\n2:cpu,cpuacct:/b\n0::/\n")
    _kernel(tmp_path, "sys/fs/cgroup/cpu/b/cpu.stat", "throttled_time 0\n")
    meter = CpuPressure(tmp_path)
    _kernel(tmp_path, "sys/fs/cgroup/cpu/b/cpu.stat", "throttled_time 9000000000\n")
    assert meter.percent()["throttled_percent"] > 0


def _kernel(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_an_instrument_that_goes_blind_blames_nobody(number: signal.Signals, tmp_path: Path) -> None:
    """The server of the null requests is stopped or gone after a second: a latency can no longer be told apart."""
    behaviour = Behaviour(delay_s=lambda _number: 0.6)
    with target(behaviour) as url:
        plan = url_plan(url, duration_s=5.0, most_s=5.0, rate_per_s=100.0, early_abort=False)
        process = start(plan, tmp_path)
        until(lambda: behaviour.count >= 100 or process.poll() is not None, 30)
        (child,) = children_of(process.pid, SERVER.name)
        os.kill(child, number)
        try:
            result = finish(process, tmp_path)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    assert verdicts(result)[DURATION] == "unknown", messages(result)
    assert verdicts(result)[FAILED] == "pass", messages(result)
