"""Whole load runs against a server that is healthy or not: what a naive tool calls green is not green here."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from loadtests.plan import LoadPlan
from loadtests.scenario import steady
from tests.loadtests.fake_target import Behaviour, target
from tests.loadtests.load_process import at_once, children_of, finish, messages, start, verdicts
from tests.waiting import until

HTTP = "{http_req_failed: ['rate<0.02'], http_req_duration: ['p(95)<400']}"
FAILED, DURATION = "load/http_req_failed/rate", "load/http_req_duration/p95"


def url_plan(url: str, **more: object) -> LoadPlan:
    """A short plan for a URL: 200 arrivals a second for 1.5 s, not longer than 4 s."""
    values: dict[str, object] = {
        "url_only": True,
        "rate_per_s": 200.0,
        "duration_s": 1.5,
        "most_s": 4.0,
        "thresholds_text": HTTP,
        "thresholds_name": "t.js",
        **more,
    }
    return LoadPlan(base_url=url, **values)  # type: ignore[arg-type]


def loaded(behaviour: Behaviour, folder: Path, **more: object) -> dict[str, Any]:
    """The result of a short load on a target that behaves so."""
    with target(behaviour) as url:
        return finish(start(url_plan(url, **more), folder), folder)


def test_a_healthy_target_passes_with_interval_margin_and_samples(tmp_path: Path) -> None:
    """Nothing is wrong: every threshold passes, with its bounds, and the distribution is there."""
    result = loaded(Behaviour(), tmp_path)
    assert result["valid"], result["invalid_reasons"]
    assert verdicts(result) == {FAILED: "pass", DURATION: "pass"}, messages(result)
    assert result["model"] == "open"
    assert 290 <= result["latency"]["samples"] <= 330
    assert result["ended"] == "as planned"
    assert all(one["margin"] > 0 and one["low"] <= one["observed"] <= one["high"] for one in result["judgements"])
    assert (tmp_path / "out" / "locust.html").stat().st_size > 1000
    assert (tmp_path / "out" / "http_req_duration.f64").stat().st_size == 8 * result["latency"]["samples"]


def test_three_percent_of_errors_never_pass_a_limit_of_two(tmp_path: Path) -> None:
    """The run goes on until the interval is clear of the limit; by the first estimate it might have passed."""
    result = loaded(Behaviour(status=lambda n: 502 if n % 33 == 0 else 200), tmp_path, most_s=3.0)
    assert verdicts(result)[FAILED] != "pass", messages(result)
    assert result["elapsed_s"] > 2.5
    assert "running on" in result["ended"]


def test_latency_that_grows_with_every_request_never_passes(tmp_path: Path) -> None:
    """Each request takes a millisecond more than the one before: far inside the limit, until the release is out."""
    text = "{http_req_duration: ['p(95)<2500']}"
    result = loaded(Behaviour(delay_s=lambda n: n * 0.001), tmp_path, thresholds_text=text, most_s=3.0)
    assert verdicts(result)[DURATION] == "unknown", messages(result)
    assert "slower through the whole run" in messages(result)


def test_a_stalled_server_shows_in_the_open_model_and_hides_in_the_closed_one(tmp_path: Path) -> None:
    """All requests due during a stall wait for its end; users who wait their turn would send one each (coordinated
    omission): the closed model passes the very same server.
    """
    models: dict[str, dict[str, object]] = {"open": {"rate_per_s": 60.0}, "closed": {"vus": 4}}

    def run(name: str, folder: Path) -> dict[str, Any]:
        behaviour = Behaviour(stall_at_s=1.2, stall_s=1.0, delay_s=lambda _n: 0.01)
        with target(behaviour) as url:
            plan = url_plan(url, duration_s=3.0, most_s=3.0, early_abort=False, **models[name])
            return finish(start(plan, folder), folder)

    results = dict(at_once(models, run, tmp_path))
    assert verdicts(results["open"])[DURATION] != "pass", messages(results["open"])
    assert results["open"]["latency"]["p95"] > 400
    assert results["closed"]["latency"]["p95"] < 400, "the naive model was expected to miss the stall"


def test_zero_requests_are_no_verdict(tmp_path: Path) -> None:
    """Locust alone exits 0 after no request at all; k6 passes a rate of 0 of 0. Here every threshold is unknown."""
    result = loaded(Behaviour(), tmp_path, rate_per_s=0.001, duration_s=0.5, most_s=0.5)
    assert result["k6_passes"]
    assert set(verdicts(result).values()) == {"unknown"}
    assert "not one request" in result["invalid_reasons"][0]


def test_a_certain_failure_ends_the_run_early_and_not_as_an_unknown(tmp_path: Path) -> None:
    """At a low rate the run goes on until its failure is one by number of samples, too; then it says why it stops."""
    result = loaded(
        Behaviour(status=lambda n: 503 if n % 2 else 200), tmp_path, rate_per_s=40.0, duration_s=8.0, most_s=8.0
    )
    assert verdicts(result)[FAILED] == "fail", messages(result)
    assert "is proved to be broken" in result["ended"]
    assert result["elapsed_s"] < 8


def test_abort_on_fail_stops_the_run_after_its_delay(tmp_path: Path) -> None:
    """An abortOnFail with delayAbortEval behaves as in k6."""
    text = "{http_req_duration: [{threshold: 'max<1', abortOnFail: true, delayAbortEval: '1s'}]}"
    result = loaded(Behaviour(delay_s=lambda _n: 0.3), tmp_path, thresholds_text=text, duration_s=8.0, most_s=8.0)
    assert "abortOnFail" in result["ended"]
    assert 1.0 < result["elapsed_s"] < 4


def test_the_samples_of_two_workers_are_merged_to_the_last_one(tmp_path: Path) -> None:
    """Every request that the server counted is a sample of the master."""
    behaviour = Behaviour()
    result = loaded(behaviour, tmp_path, workers=2)
    assert result["valid"], result["invalid_reasons"]
    assert result["facts"]["requests"] == behaviour.count
    assert verdicts(result) == {FAILED: "pass", DURATION: "pass"}
    assert len(result["facts"]["cpu_percent"]) == 2


def test_above_the_cap_a_run_goes_on_rounded_and_says_so(tmp_path: Path) -> None:
    """Two workers, a cap of 100 values: no request is lost, the run ends as planned, and the recorder is named."""
    behaviour = Behaviour()
    result = loaded(behaviour, tmp_path, workers=2, most_exact=100)
    assert result["valid"], result["invalid_reasons"]
    assert result["ended"] == "as planned"
    assert result["recorder"] == "hdr, 3 significant digits"
    assert result["latency"]["samples"] == result["facts"]["requests"] == behaviour.count
    assert verdicts(result) == {FAILED: "pass", DURATION: "pass"}
    assert "recorder: hdr, 3 significant digits" in messages(result)
    assert (tmp_path / "out" / "http_req_duration.hdr.json").exists()


def test_a_killed_worker_makes_the_run_invalid(tmp_path: Path) -> None:
    """Locust exits 0 when a worker is killed and its samples are lost; here the run is no verdict."""
    behaviour = Behaviour()
    with target(behaviour) as url:
        process = start(url_plan(url, workers=2, duration_s=6.0, most_s=6.0), tmp_path)
        kill_one_worker(process.pid, behaviour)
        result = finish(process, tmp_path)
    assert not result["valid"]
    assert "lost" in result["invalid_reasons"][0]
    assert set(verdicts(result).values()) == {"unknown"}
    assert result["elapsed_s"] < 5


def kill_one_worker(master: int, behaviour: Behaviour) -> None:
    """Send SIGKILL to one worker of the master, once the load has begun."""
    until(lambda: len(children_of(master, "--worker")) == 2 and behaviour.count >= 100, 20)
    os.kill(children_of(master, "--worker")[0], signal.SIGKILL)


@pytest.mark.parametrize(
    ("lag_s", "behind_s"), [(0.02, 0.0), (0.02, 0.3), (None, 0.0)], ids=["delivered", "read late", "worker stopped"]
)
def test_canaries_measure_the_lag_end_to_end(lag_s: float | None, behind_s: float, tmp_path: Path) -> None:
    """Events show their lag, also where a replica that is behind answers; those without an effect count with their age,
    which breaks the limit.
    """
    text = (
        "{outbox_lag_ms: ['p(95)<1500', 'avg<1000'], agent_success: ['rate>0.9'], dlq_items_count: ['count<10'],"
        " http_req_failed: ['rate<0.05']}"
    )
    with target(Behaviour(lag_s=lag_s, behind_s=behind_s)) as url:
        plan = LoadPlan(
            base_url=url,
            thresholds_text=text,
            scenarios=(steady("event", 60.0),),
            duration_s=1.5,
            most_s=1.5,
            test_company_id="00000000-0000-4000-8000-000000000001",
        )
        result = finish(start(plan, tmp_path), tmp_path)
    found = verdicts(result)
    assert result["valid"], result["invalid_reasons"]
    assert found["load/dlq_items_count/count"] == "unknown"
    assert "no DATABASE_URL" in messages(result)
    assert found["load/http_req_failed/rate"] != "fail", messages(result)
    if lag_s is None:
        due = {"fail", "unknown"} if "the gate itself was slow" in messages(result) else {"fail"}
        assert {found["load/outbox_lag_ms/p95"], found["load/outbox_lag_ms/avg"]} <= due, messages(result)
        assert found["load/agent_success/rate"] == "unknown"
    else:
        assert found["load/outbox_lag_ms/p95"] == found["load/outbox_lag_ms/avg"] == "pass", messages(result)
        assert found["load/agent_success/rate"] == "pass"
        assert 19 < result["outbox_lag"]["p50"] < 120


def test_events_on_the_direct_path_have_no_lag(tmp_path: Path) -> None:
    """Where the outbox is off for the company there is no canary: unknown, with the reason."""
    with target(Behaviour(path="direct")) as url:
        plan = LoadPlan(
            base_url=url,
            thresholds_text="{outbox_lag_ms: ['p(95)<1500']}",
            scenarios=(steady("event", 60.0),),
            duration_s=1.0,
            most_s=1.0,
            test_company_id="00000000-0000-4000-8000-000000000001",
        )
        result = finish(start(plan, tmp_path), tmp_path)
    assert verdicts(result) == {"load/outbox_lag_ms/p95": "unknown"}
    assert "direct path" in messages(result)


def test_a_switch_that_is_off_is_unknown(tmp_path: Path) -> None:
    """TEST_OUTBOX=false cannot turn a requirement into a pass."""
    with target(Behaviour()) as url:
        text, streams = "{outbox_lag_ms: ['avg<1']}", (steady("probe", 50.0),)
        more = {"url_only": False, "test_outbox": False, "scenarios": streams, "thresholds_text": text}
        result = finish(start(url_plan(url, duration_s=0.5, most_s=0.5, **more), tmp_path), tmp_path)
    assert verdicts(result) == {"load/outbox_lag_ms/avg": "unknown"}
    assert "switched off" in messages(result)


def test_a_broken_thresholds_file_is_refused_before_any_request(tmp_path: Path) -> None:
    """Exit code 3, with file, line and column, and the server saw nothing."""
    behaviour = Behaviour()
    with target(behaviour) as url:
        process = start(url_plan(url, thresholds_text="{http_req_failed: ['rate<2%']}"), tmp_path)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "t.js:1:20:" in output
    assert behaviour.count == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_slow_requests_still_open_at_the_end_are_waited_for_and_counted(workers: int, tmp_path: Path) -> None:
    """At the planned end the slow ones have not come in; judged without them the run would pass. With them it is
    undecided or failed, and the run is taken up again.
    """
    behaviour = Behaviour(delay_s=lambda n: 1.2 if n % 14 == 0 else 0.0)
    with target(behaviour) as url:
        plan = url_plan(url, duration_s=1.0, most_s=5.0, early_abort=False, workers=workers)
        result = finish(start(plan, tmp_path), tmp_path)
    assert result["valid"], result["invalid_reasons"]
    assert verdicts(result)[DURATION] != "pass", messages(result)
    assert result["latency"]["p100"] > 1100
    assert result["facts"]["requests"] == behaviour.count
