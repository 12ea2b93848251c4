"""k6's scenarios: read, refused and timed as k6 does it; and performed, beside the real binary."""

import itertools
import json
import math
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from loadtests.engine.metrics import TYPES
from loadtests.engine.schedule import arrivals, over_s, spells
from loadtests.plan import LoadPlan
from loadtests.scenario import Executor, Scenario, Stage
from loadtests.thresholds.file import ThresholdsFile, ThresholdsFileError, parse_thresholds
from loadtests.thresholds.language import parse_duration_ns
from tests.loadtests.fake_target import Behaviour, target
from tests.loadtests.k6_program import k6_binary, run_k6
from tests.loadtests.load_process import finish, start

K6 = pytest.mark.skipif(k6_binary() is None, reason="no k6 binary on PATH; the development extra brings one")
THRESHOLDS = "thresholds: {http_req_failed: ['rate<0.02']}"


def read(options: str) -> ThresholdsFile:
    return parse_thresholds(f"{{{options}{THRESHOLDS}}}", "t.js", TYPES, ("event", "probe", "replay"))


def scenario(body: str) -> Scenario:
    (found,) = read(f"scenarios: {{s: {{{body}}}}}, ").scenarios
    return found


OPTIONS = [
    "", "vus: 3, duration: '10s', ", "vus: 3, stages: [{duration: '10s', target: 10}], ",
    "stages: [{duration: '10s', target: 10}, {duration: '0s', target: 2}], ",
    "iterations: 10, vus: 3, duration: '1m', ", "iterations: 2, vus: 3, ", "iterations: 5, vus: 1, ",
    "duration: 5000, vus: 1, ",
    "duration: '5s', stages: [{duration: '1s', target: 1}], ",
    "iterations: 3, stages: [{duration: '1s', target: 1}], ", "vus: 0, duration: '5s', ",
    "vus: 1.5, duration: '5s', ", "iterations: 0, vus: 1, ", "duration: 0, vus: 1, ", "duration: '0.5s', vus: 1, ",
    "vus: null, stages: null, duration: null, iterations: null, ", "stages: [], ", "scenarios: {}, ",
    "scenarios: null, ", "rps: 10, setupTimeout: '10s', noConnectionReuse: true, ", "insecureSkipTLSVerify: 'yes', ",
    "rps: 'a', ", "stages: [{duration: '1s'}], ", "stages: [{target: 1}], ",
    "stages: [{duration: '1s', target: -1}], ", "stages: {}, ", "vus: '3', duration: '5s', ",
    "duration: '2s', scenarios: {x: {executor: 'constant-vus', duration: '2s'}}, ",
]  # fmt: skip
BODIES = [
    "executor: 'constant-vus', vus: 2, duration: '2s'", "executor: 'constant-vus', duration: '0.5s'",
    "executor: 'constant-vus'", "executor: 'constant-vus', duration: '2s', foo: 1",
    "executor: 'nosuch', duration: '2s'", "vus: 1", "executor: 'constant-vus', vus: 0, duration: '2s'",
    "executor: 'constant-vus', duration: 2000, gracefulStop: '0s'",
    "executor: 'ramping-vus', startVUs: 0, stages: [], gracefulRampDown: '1s'",
    "executor: 'ramping-vus', stages: [{duration: '3s', target: 5}], startTime: '1m'",
    "executor: 'ramping-vus', startVUs: 0, stages: [{duration: '3s', target: 0}]",
    "executor: 'ramping-vus', startVUs: 3, stages: [{duration: '1s', target: 7}, {duration: '1s', target: 0}]",
    "executor: 'ramping-vus', stages: [{duration: '-3s', target: 5}]",
    "executor: 'shared-iterations', vus: 2, iterations: 5, maxDuration: '1m'", "executor: 'shared-iterations'",
    "executor: 'shared-iterations', vus: 3, iterations: 2", "executor: 'shared-iterations', maxDuration: '0.1s'",
    "executor: 'per-vu-iterations', vus: 2, iterations: 3, startTime: '1s', gracefulStop: '2s', tags: {t: '1'}",
    "executor: 'per-vu-iterations', vus: 2, iterations: 0", "executor: 'per-vu-iterations', iterations: null",
    "executor: 'constant-arrival-rate', rate: 10, duration: '2s', preAllocatedVUs: 2",
    "executor: 'constant-arrival-rate', rate: 10, duration: '2s', preAllocatedVUs: 2, maxVUs: 9, timeUnit: '1m'",
    "executor: 'constant-arrival-rate', rate: 10, duration: '2s'",
    "executor: 'constant-arrival-rate', duration: '2s', preAllocatedVUs: 2",
    "executor: 'constant-arrival-rate', rate: 0, duration: '2s', preAllocatedVUs: 2",
    "executor: 'constant-arrival-rate', rate: 10, duration: '2s', preAllocatedVUs: 2, timeUnit: 0",
    "executor: 'constant-arrival-rate', rate: 1.5, duration: '2s', preAllocatedVUs: 2",
    "executor: 'ramping-arrival-rate', stages: [{duration: '2s', target: 5}], preAllocatedVUs: 2, maxVUs: 1",
    "executor: 'ramping-arrival-rate', stages: [{duration: '2s', target: 5}], preAllocatedVUs: 2, startRate: 3",
    "executor: 'ramping-arrival-rate', preAllocatedVUs: 2", "executor: 'ramping-arrival-rate', startTime: '-1s'",
    "executor: 'constant-arrival-rate', rate: '5', duration: '2s', preAllocatedVUs: '2', maxVUs: '+9'",
    "executor: 'ramping-vus', startVUs: '02', stages: [{duration: '1s', target: '3'}]",
    "executor: 'constant-vus', vus: '2.0', duration: '2s'", "executor: 'constant-vus', vus: '-2', duration: '2s'",
    "executor: 'constant-vus', duration: '1h30m5.5s', env: {A: '1'}",
    "executor: 'constant-vus', duration: 2e3, env: {A: 1}",
]  # fmt: skip

STRICTER = {"stages: [{target: 1}], "}
"""k6 takes a stage without a duration as one of 0 s."""


def inspected(options: str, folder: Path) -> dict[str, Any] | None:
    """What k6 makes of the options; None where it refuses them."""
    script = folder / f"{hash(options)}.js"
    script.write_text(f"export const options = {{{options}{THRESHOLDS}}};\nexport default function () {{}}\n")
    command = [str(k6_binary()), "inspect", "--execution-requirements", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={"HOME": str(folder)})
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :]) if done.returncode == 0 else {}
    return found or None


def ours_of(options: str) -> dict[str, Any] | None:
    """The same from our reader."""
    try:
        file = read(options)
    except ThresholdsFileError as error:
        assert str(error).startswith("t.js:1:")  # noqa: PT017  -- it is None that is compared
        return None
    users = (one.most_level if one.executor is Executor.USERS else one.users for one in file.scenarios)
    longest = max(((one.end_s or math.nan) + one.grace_s for one in file.scenarios), default=0.0)
    return {"totalDuration": longest, "maxVUs": sum(users)} if file.scenarios else {}


@K6
def test_options_are_refused_or_timed_as_by_k6(tmp_path: Path) -> None:
    """The same files are refused (ours a few more); of the others the longest time and the most users are k6's."""
    cases = [*OPTIONS, *(f"scenarios: {{s: {{{body}}}}}, " for body in BODIES)]
    with ThreadPoolExecutor(2) as pool:
        for options, theirs in zip(cases, pool.map(lambda one: inspected(one, tmp_path), cases), strict=True):
            ours = ours_of(options)
            if options not in STRICTER:
                assert (ours is None) is (theirs is None), (options, ours, theirs)
            if ours and theirs:
                assert ours["totalDuration"] == parse_duration_ns(theirs["totalDuration"]) / 1e9, options
                assert ours["maxVUs"] == theirs["maxVUs"], options


@pytest.mark.parametrize(
    ("options", "place", "words"),
    [
        ("vus: 2, scenarios: {x: {executor: 'constant-vus', duration: '2s'}}, ", 2, "'vus' beside 'scenarios'"),
        ("scenarios: {x: {executor: 'constant-vus', duration: '2s', exec: 'login'}}, ", 66, "functions of a script"),
        ("scenarios: {x: {executor: 'constant-vus', duration: '8d'}}, ", 54, "to a week"),
        ("scenarios: {x: {executor: 'ramping-vus', stages: [{duration: 1, tarqet: 1}]}}, ", 66, "one is 'target'"),
        ("hosts: {'a': '1.2.3.4'}, ", 2, "give the address itself as --url or BASE_URL"),
        ("tlsAuth: [], ", 2, "is not supported"),
        ("scenarios: {x: {executor: 'constant-vus', duration: '2s', options: {browser: {}}}}, ", 69, "browser"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_said_with_its_place(options: str, place: int, words: str) -> None:
    """Never another load than the one that was asked for."""
    with pytest.raises(ThresholdsFileError) as caught:
        read(options)
    assert str(caught.value).startswith(f"t.js:1:{place}: "), str(caught.value)
    assert words in str(caught.value)


def times(one: Scenario, index: int = 0, of: int = 1, *, run_on: bool = False) -> list[float]:
    plan = LoadPlan("http://x", scenarios=(one,), run_on=run_on)
    return [at for at, _ in itertools.islice(arrivals(plan, index, of), 1000)]


def test_arrivals_follow_the_ramp() -> None:
    """From 0 to 20 a second in 10 s, then 20 a second for 5 s: 100 and 100 arrivals, a quarter of the first by half."""
    stages = "[{duration: '10s', target: 20}, {duration: '5s', target: 20}]"
    found = times(scenario(f"executor: 'ramping-arrival-rate', preAllocatedVUs: 9, startTime: '3s', stages: {stages}"))
    assert len(found) == 200
    assert sum(at < 3 + 10 for at in found) == 100
    assert sum(at < 3 + 5 for at in found) == 25
    assert found == sorted(found)
    assert 3 < found[0] < found[-1] < 18


def test_arrivals_of_all_processes_are_those_of_one() -> None:
    """Dealt out over three processes none is lost and none comes twice, also on a ramp and a jump."""
    stages = "[{duration: '2s', target: 9}, {duration: 0, target: 40}, {duration: '3s', target: 1}]"
    ramp = scenario(f"executor: 'ramping-arrival-rate', startRate: 5, preAllocatedVUs: 9, stages: {stages}")
    assert sorted(times(ramp, 0, 3) + times(ramp, 1, 3) + times(ramp, 2, 3)) == pytest.approx(times(ramp))
    assert len(times(ramp)) == 14 + 61


def test_an_undecided_run_goes_on_at_the_last_rate() -> None:
    """What is there at the planned end goes on where the run may; where it may not, it ends."""
    one = scenario("executor: 'constant-arrival-rate', rate: 10, duration: '2s', preAllocatedVUs: 9")
    assert len(times(one)) == 20
    assert len(times(one, run_on=True)) == 1000


def test_users_come_and_go_as_in_k6() -> None:
    """Each at the moment when the straight line reaches it; who has gone may come again."""
    ramp = Scenario(Executor.USERS, 1, (Stage(4, 5), Stage(0, 8), Stage(2, 8), Stage(4, 0), Stage(2, 1)))
    end_s = over_s(ramp, LoadPlan("http://x", scenarios=(ramp,), run_on=False))
    assert end_s == 12
    there = {number: list(spells(ramp, number, end_s)) for number in range(9)}
    assert there[0] == [(0, 10), (12, 12)]
    assert there[1] == [(1, 9.5)]
    assert there[4] == [(4, 8)]
    assert there[5] == [(4, 7.5)]
    assert there[8] == []


NAMES = ("shared", "each", "users", "ramp", "rate", "climb")
ALL_SIX = """
  shared: {executor: 'shared-iterations', vus: 3, iterations: 20},
  each: {executor: 'per-vu-iterations', vus: 2, iterations: 4, startTime: '500ms'},
  users: {executor: 'constant-vus', vus: 2, duration: '2s', gracefulStop: '1s'},
  ramp: {executor: 'ramping-vus', startVUs: 0, stages: [{duration: '1s', target: 4}, {duration: '1s', target: 0}]},
  rate: {executor: 'constant-arrival-rate', rate: 20, duration: '2s', preAllocatedVUs: 20},
  climb: {executor: 'ramping-arrival-rate', stages: [{duration: '2s', target: 20}], preAllocatedVUs: 20},
"""


@K6
def test_all_executors_make_the_iterations_of_k6(tmp_path: Path) -> None:
    """All six at once against a server that needs a tenth of a second; counts are read by the tag `scenario`."""
    counts = ", ".join(f"'http_reqs{{scenario:{name}}}': ['count>0']" for name in NAMES)
    options = f"{{ scenarios: {{{ALL_SIX}}}, thresholds: {{ {counts} }} }}"
    with target(Behaviour(delay_s=lambda _n: 0.1)) as url, ThreadPoolExecutor(1) as pool:
        source = f"""import http from 'k6/http';
export const options = {options};
export default function () {{ http.get('{url}/'); }}
export function handleSummary(data) {{ return {{ stdout: JSON.stringify(data.metrics) }}; }}
"""
        theirs = pool.submit(run_k6, str(k6_binary()), source, tmp_path)
        plan = LoadPlan(url, "t.js", options, url_only=True, run_on=False, early_abort=False)
        ours = finish(start(plan, tmp_path), tmp_path)
    code, out, err = theirs.result()
    assert code == 0, err
    assert ours["valid"], ours["invalid_reasons"]
    assert (ours["model"], ours["ended"]) == ("closed", "as planned")
    metrics = json.loads(out)
    for one, name in zip(ours["judgements"], NAMES, strict=True):
        count = metrics[f"http_reqs{{scenario:{name}}}"]["values"]["count"]
        slack = 0 if name in {"shared", "each"} else 4
        assert abs(one["observed"] - count) <= slack, (name, one["observed"], count)


def test_iterations_end_the_run_when_they_are_made(tmp_path: Path) -> None:
    """Two processes make 30 iterations between them, and not one more; the run ends long before its ten minutes."""
    options = f"{{iterations: 30, vus: 4, {THRESHOLDS}}}"
    with target(Behaviour()) as url:
        ours = finish(start(LoadPlan(url, "t.js", options, url_only=True, workers=2), tmp_path), tmp_path)
    assert ours["valid"], ours["invalid_reasons"]
    assert ours["facts"]["requests"] == 30
    assert ours["ended"] == "as planned, undecided"
    assert ours["elapsed_s"] < 5


def test_iterations_not_begun_in_time_are_dropped_and_pass_nothing(tmp_path: Path) -> None:
    """The target is too slow for their number: k6 counts them as dropped, and here the run is in doubt."""
    scenarios = (
        "{x: {executor: 'shared-iterations', vus: 2, iterations: 500, maxDuration: '1s', gracefulStop: '300ms'}}"
    )
    thresholds = "thresholds: {http_req_failed: ['rate<0.02'], 'dropped_iterations{scenario:x}': ['count<1']}"
    with target(Behaviour(delay_s=lambda n: 9.0 if n > 5 else 0.01)) as url:
        plan = LoadPlan(url, "t.js", f"{{scenarios: {scenarios}, {thresholds}}}", url_only=True)
        ours = finish(start(plan, tmp_path), tmp_path)
    assert ours["facts"]["dropped_iterations"] == 500 - 5 - 2
    assert (ours["judgements"][1]["verdict"], ours["judgements"][1]["observed"]) == ("fail", 493.0), "as in k6"
    assert "dropped" in ours["invalid_reasons"][0]
    assert ours["requests"][0]["error"] == "timeout", "what gracefulStop cuts off has failed; k6 would not count it"
    assert ours["elapsed_s"] < 4


def test_rps_and_new_connections_are_kept(tmp_path: Path) -> None:
    """Ten users make 40 requests a second, each on its own connection; waiting is no part of a duration."""
    options = "duration: '1s', vus: 10, rps: 40, noConnectionReuse: true"
    with target(Behaviour()) as url:
        plan = LoadPlan(url, "t.js", f"{{{options}, {THRESHOLDS}}}", url_only=True, run_on=False)
        ours = finish(start(plan, tmp_path), tmp_path)
    assert 38 <= ours["facts"]["requests"] <= 60
    assert ours["latency"]["p50"] < 100


def test_a_setup_that_takes_too_long_makes_no_request(tmp_path: Path) -> None:
    """A database that accepts connections and never answers: after setupTimeout the run ends, and proves nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent, target(Behaviour()) as url:
        database_url = f"postgresql://a:b@127.0.0.1:{silent.getsockname()[1]}/c?sslmode=disable"
        plan = LoadPlan(url, "t.js", f"{{setupTimeout: '500ms', {THRESHOLDS}}}", tenants_wanted=1)
        ours = finish(start(plan, tmp_path, DATABASE_URL=database_url), tmp_path)
    assert {one["verdict"] for one in ours["judgements"]} == {"unknown"}
    assert ours["facts"]["requests"] == 0
    assert any("setupTimeout" in note for note in ours["notes"])
