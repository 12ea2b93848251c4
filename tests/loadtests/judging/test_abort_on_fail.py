"""abortOnFail before the planned end: by our bounds, or as k6 does it under --compat k6."""

import time

import pytest

from loadtests.engine.conductor import Conductor
from loadtests.engine.metrics import TYPES
from loadtests.engine.samples import Samples
from loadtests.plan import LoadPlan
from loadtests.thresholds.file import parse_thresholds

REPORT = {
    "sequence": 0, "final": False, "dropped": 0, "silent_s": 0.0, "cpu_percent": 1.0, "pressure": {}, "users": 1,
    "canaries": [0, 0, 0], "paused": False, "done": False, "acknowledged": [], "replays": {},
}  # fmt: skip


def begun(threshold: str, good: int, bad: int, *, at_s: float = 2.1, compat: bool = False, more: str = "") -> Conductor:
    """A run of 60 s after `at_s` seconds, with this many requests of 5 ms, evenly spread."""
    text = f"{{http_req_duration: ['p(95)<1e9'], {threshold}, abortOnFail: true{more}}}]}}"
    plan = LoadPlan("http://a.test", duration_s=60.0, compat_k6=compat, early_abort=False)
    conductor = Conductor(plan, parse_thresholds(text, "t.js", TYPES).thresholds, {}, has_database=False)
    conductor.started = time.perf_counter() - at_s
    n = good + bad
    took(conductor, [(at_s * i / n, i * bad // n != (i + 1) * bad // n) for i in range(n)], at_s)
    return conductor


def took(conductor: Conductor, requests: list[tuple[float, bool]], at_s: float, sequence: int = 0) -> None:
    """A report of requests, given by start and failure."""
    samples = Samples()
    for start_s, failed in requests:
        group = samples.group({"name": "a", "method": "GET", "status": "500" if failed else "200"}, failed=failed)
        for timing in group.timings.values():
            timing.append(5.0)
        group.starts.append(start_s)
        samples.add("null_request_ms", 0.1)  # the instrument is sound
    conductor.on_report("local", {**REPORT, **samples.take_report(), "elapsed_s": at_s, "sequence": sequence})


def reason(threshold: str, good: int, bad: int, *, at_s: float = 2.1, compat: bool = False, more: str = "") -> str:
    """Why the run ends."""
    return begun(threshold, good, bad, at_s=at_s, compat=compat, more=more).stop_reason()


RATE = "http_req_failed: [{threshold: 'rate<0.1'"


def test_a_bad_start_that_k6_aborts_is_no_proof() -> None:
    """4 failures in 26 requests exceed 10 % by chance in every fourth run."""
    assert "abortOnFail" in reason(RATE, 22, 4, compat=True)
    assert reason(RATE, 22, 4) == ""


def test_a_failure_beyond_doubt_aborts_either_way() -> None:
    """Half of 200 requests failed."""
    assert "abortOnFail" in reason(RATE, 100, 100)
    assert "abortOnFail" in reason(RATE, 100, 100, compat=True)


def test_what_ended_the_run_has_failed_whatever_comes_until_all_is_answered() -> None:
    """A proof that ended the run stands, whatever the last answers add."""
    kept, doubted = begun(RATE, 160, 40), begun(RATE, 160, 40)
    assert "abortOnFail" in kept.stop_reason()
    for one in (kept, doubted):
        took(one, [(2.1 + i / 60, True) for i in range(100)], 4.1, sequence=1)
    verdicts = [{j.metric: j.verdict.value for j in one.judgements()}["http_req_failed"] for one in (kept, doubted)]
    assert verdicts == ["fail", "unknown"]


@pytest.mark.parametrize("compat", [False, True])
def test_a_delay_is_waited_for(*, compat: bool) -> None:
    """Not before `delayAbortEval` is over, however sure the failure is; a delay beyond 64 bits is none, as in k6."""
    assert reason(RATE, 0, 200, compat=compat, more=", delayAbortEval: '3s'") == ""
    assert "abortOnFail" in reason(RATE, 0, 200, at_s=4.1, compat=compat, more=", delayAbortEval: '3s'")
    assert "abortOnFail" in reason(RATE, 0, 200, compat=compat, more=", delayAbortEval: 1e300")


def test_k6_looks_every_two_seconds() -> None:
    """Like k6, it aborts only at a look."""
    assert reason(RATE, 0, 200, at_s=1.9, compat=True) == ""


@pytest.mark.parametrize(
    ("threshold", "aborts"),
    [
        ("http_reqs: [{threshold: 'count>1000'", False),
        ("http_reqs: [{threshold: 'count<100'", True),
        ("http_req_duration{name:a}: [{threshold: 'max<1'", True),
        ("http_req_duration{name:a}: [{threshold: 'min<1'", False),
        ("http_req_failed: [{threshold: 'rate<=0'", True),
        ("http_req_failed: [{threshold: 'rate>=1'", True),
        ("http_req_failed: [{threshold: 'rate==1'", False),
    ],
)
def test_what_more_samples_could_undo_does_not_abort(threshold: str, *, aborts: bool) -> None:
    """A counter below its target may still rise; a maximum above its limit stays."""
    name, _, rest = threshold.partition(": ")
    assert bool(reason(f"'{name}': {rest}", 100, 100)) is aborts
    assert "abortOnFail" in reason(f"'{name}': {rest}", 100, 100, compat=True)
