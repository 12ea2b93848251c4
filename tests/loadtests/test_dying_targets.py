"""A target that stops answering in the middle of a run never passes, whatever it did before it died."""

import json
import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest

from loadtests.plan import LoadPlan
from tests.loadtests.fake_target import Behaviour, target
from tests.loadtests.k6_program import k6_binary
from tests.loadtests.load_process import at_once, finish, messages, start, verdicts

FAILED = "load/http_req_failed/rate"
HTTP = "{http_req_failed: ['rate<0.02'], http_req_duration: ['p(95)<400']}"
MODELS: dict[str, dict[str, Any]] = {
    "open": {"rate_per_s": 80.0},
    "vus": {"vus": 4},
    "stages": {"stages": "[{duration: '1s', target: 4}, {duration: '1s', target: 4}]"},
    "two processes": {"vus": 4, "workers": 2},
}
FOR_EVER_S = 60.0


def plan(url: str, **more: Any) -> LoadPlan:
    """Two seconds of load; a request may take one."""
    values: dict[str, Any] = {"duration_s": 2.0, "most_s": 2.0, "timeout_s": 1.0, "thresholds_text": HTTP, **more}
    if "stages" in values:
        values["thresholds_text"] = f"{{stages: {values.pop('stages')}, thresholds: {HTTP}}}"
    return LoadPlan(base_url=url, url_only=True, thresholds_name="t.js", **values)


DIES_AT_S = (0.1, 0.7, 1.4)


@pytest.mark.parametrize("model", MODELS)
def test_a_target_that_stops_answering_passes_nothing(model: str, tmp_path: Path) -> None:
    """Thousands of fast answers before it died outnumber the few users that wait for ever: still no pass."""

    def run(dies_at_s: float, folder: Path) -> dict[str, Any]:
        with target(Behaviour(stall_at_s=dies_at_s, stall_s=FOR_EVER_S)) as url:
            return finish(start(plan(url, **MODELS[model]), folder), folder)

    most = 1 if "workers" in MODELS[model] else 3  # the start of two processes takes a whole machine
    for dies_at_s, result in at_once(DIES_AT_S, run, tmp_path, most=most):
        assert "pass" not in verdicts(result).values(), (dies_at_s, messages(result))
        assert result["latency"]["p100"] >= 900, f"{dies_at_s}: the open requests count with their age"


@pytest.mark.parametrize("model", ["vus", "open"])
def test_requests_that_the_end_cuts_off_are_failed_samples(model: str, tmp_path: Path) -> None:
    """A limit of 20 s a request, a grace of one: what is then open has failed, and its age is its latency."""
    behaviour = Behaviour(stall_at_s=0.0, stall_s=FOR_EVER_S)
    with target(behaviour) as url:
        values = {**MODELS[model], "timeout_s": 20.0, "grace_s": 1.0, "duration_s": 1.0, "most_s": 1.0, "run_on": False}
        result = finish(start(plan(url, **values), tmp_path), tmp_path)
    rows = {row["error"]: row for row in result["requests"]}
    assert rows["unfinished"]["failed"]
    assert rows["unfinished"]["max"] >= 1000
    assert result["facts"]["requests"] == behaviour.count


def test_one_hanging_request_is_no_dead_target(tmp_path: Path) -> None:
    """While others are answered, a single request that hangs through the end is one failed sample of many."""
    with target(Behaviour(delay_s=lambda number: FOR_EVER_S if number == 100 else 0.0)) as url:
        result = finish(start(plan(url, rate_per_s=150.0), tmp_path), tmp_path)
    assert set(verdicts(result).values()) == {"pass"}, messages(result)


def test_what_this_machine_could_not_send_is_no_failure_of_the_target(tmp_path: Path) -> None:
    """Out of descriptors, requests are dropped: nothing passes, and those that were sent are judged alone."""
    behaviour = Behaviour(delay_s=lambda _number: 0.4)
    with target(behaviour) as url:
        process = start(plan(url, rate_per_s=300.0, early_abort=False), tmp_path)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (160, 160))
        result = finish(process, tmp_path)
    assert result["facts"]["dropped_iterations"] > 0
    assert result["facts"]["requests"] == behaviour.count
    assert verdicts(result)[FAILED] == "unknown", messages(result)


K6 = """
import http from 'k6/http'; import {{ sleep }} from 'k6';
export const options = {{ vus: 4, duration: '2s', thresholds: {thresholds} }};
export default function () {{ http.get('{url}', {{ timeout: '1s' }}); sleep({think_s}); }}
"""


def test_what_the_real_k6_fails_does_not_pass_here(tmp_path: Path) -> None:
    """The same users, pauses and limits against the same dying server."""
    binary = k6_binary()
    if binary is None:
        pytest.skip("no k6 binary on PATH; the development extra brings one")

    def run(dies_at_s: float, folder: Path) -> tuple[int, dict[str, Any]]:
        with target(Behaviour(stall_at_s=dies_at_s, stall_s=FOR_EVER_S)) as url:
            (folder / "s.js").write_text(K6.format(url=url, think_s=0.2, thresholds=HTTP), encoding="utf-8")
            command = [binary, "run", "--quiet", "--no-usage-report", "--address", "127.0.0.1:0", str(folder / "s.js")]
            theirs = subprocess.run(command, capture_output=True, timeout=60, check=False, env={"HOME": str(folder)})
        with target(Behaviour(stall_at_s=dies_at_s, stall_s=FOR_EVER_S)) as url:
            return theirs.returncode, finish(start(plan(url, vus=4, think_s=0.2), folder), folder)

    for dies_at_s, (theirs, result) in at_once(DIES_AT_S, run, tmp_path):
        assert theirs == 99, dies_at_s
        silent = set(verdicts(result).values()) == {"unknown"}
        assert not result["k6_passes"] or silent, (dies_at_s, json.dumps(result["judgements"]))
