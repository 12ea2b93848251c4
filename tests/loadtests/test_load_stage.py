"""The load stage: a result becomes evidence, a missing one is unknown, options become a plan."""

import json
import re
import subprocess
import sys
import time
from array import array
from pathlib import Path
from typing import Any

import pytest

from gates.decision.policy_file import Settings
from gates.deployment.target import Target
from gates.errors import ConfigError
from gates.evidence import Evidence, Outcome, TargetKind
from gates.stages import load_process
from gates.stages.context import COMPANIES, Context
from gates.stages.load_checks import SPECS
from gates.stages.load_options import OF_A_RUN
from loadtests.asked import thresholds_of
from loadtests.engine.sinks import TrendSink
from loadtests.engine.wire import parse_address
from loadtests.engine.workload import Workload
from loadtests.judgement.baseline import compare
from loadtests.plan import Credentials, LoadPlan, Tenant, load_plan
from tests.gates.reports.schemas import broken_rules
from tests.loadtests.fake_target import Behaviour, target
from tests.loadtests.load_process import options


def judged(check: str, verdict: str, **more: Any) -> dict[str, Any]:
    metric, _, aggregation = check.removeprefix("load/").rpartition("/")
    return {
        "check": check, "metric": metric, "aggregation": aggregation, "verdict": verdict, "why": "decided",
        "k6_passes": True, "observed": 1.0, "limit": 2.0, "samples": 200, "source": "x", "low": 0.0, "high": 1.5,
        "method": "m", "needed": 59, "margin": 0.2, "message": "said", "recorder": "exact",
        "independent": 190.0, "stalls": [], "excluded_s": 0.1,
        **more,
    }  # fmt: skip


def result(**more: Any) -> dict[str, Any]:
    rest: dict[str, Any] = dict.fromkeys(load_process.SHOWN)
    return {
        **rest, "valid": True, "invalid_reasons": [], "elapsed_s": 10.0, "ended": "as planned",
        "facts": {"requests": 700}, "requests": [], "judgements": [judged("load/http_req_failed/rate", "pass")], **more,
    }  # fmt: skip


def by_check(found: list[Evidence]) -> dict[str, Evidence]:
    return {e.check: e for e in found}


def test_a_result_becomes_one_evidence_per_threshold_and_one_for_the_run() -> None:
    """Outcome, numbers, unit, samples and bounds arrive; k6's verdict stands beside ours when asked for."""
    document = result(
        judgements=[judged("load/http_req_duration/p95", "fail"), judged("load/agent_success/rate", "pass")]
    )
    found = by_check(load_process.evidence_of(document, compat=True, started_at="2024-06-01T00:00:00Z"))
    assert found["load/run-valid"].outcome is Outcome.PASS
    assert found["load/run-valid"].samples == 700
    one = found["load/http_req_duration/p95"]
    assert (one.outcome, one.unit, one.samples, one.limit) == (Outcome.FAIL, "ms", 200, 2.0)
    assert "k6 says: pass" in one.message
    assert found["load/agent_success/rate"].unit == ""
    assert one.details["high"] == 1.5


def test_an_invalid_run_blocks_its_thresholds() -> None:
    """The cause is cited once, by what it made unknown; a failure that was left standing stands."""
    judgements = [judged("load/x/avg", "unknown"), judged("load/x/max", "fail")]
    document = result(valid=False, invalid_reasons=["the machine was busy"], judgements=judgements)
    found = by_check(load_process.evidence_of(document, compat=False, started_at=""))
    assert found["load/run-valid"].outcome is Outcome.UNKNOWN
    assert "the machine was busy" in found["load/run-valid"].message
    assert found["load/x/avg"].outcome is Outcome.UNKNOWN
    assert found["load/x/avg"].blocked_by == "load/run-valid"
    assert (found["load/x/max"].outcome, found["load/x/max"].blocked_by) == (Outcome.FAIL, "")


def test_failed_requests_are_named_by_what_most_of_them_were() -> None:
    """Who reads that one request in three failed also reads which, and what was answered."""
    rows = (("GET /healthz", 200, "", 90, False), ("POST /events", 404, "", 54, True), ("POST /x", 0, "reset", 6, True))
    made = [dict(zip(("name", "status", "error", "count", "failed"), row, strict=True)) for row in rows]
    failed = judged("load/http_req_failed/rate", "fail", metric="http_req_failed")
    said = by_check(load_process.evidence_of(result(requests=made, judgements=[failed]), compat=False, started_at=""))
    assert "54 of 60 failed requests were POST /events, answered 404" in said["load/http_req_failed/rate"].message
    assert "failed requests" not in said["load/run-valid"].message


def test_a_switched_off_metric_says_so() -> None:
    """The message begins with the warning."""
    one = judged("load/outbox_lag_ms/avg", "unknown", why="switched off", message="switched off (TEST_OUTBOX=false)")
    found = by_check(load_process.evidence_of(result(judgements=[one]), compat=False, started_at=""))
    assert found["load/outbox_lag_ms/avg"].message.startswith("unknown (switched off)")


def test_the_checks_of_the_checklist_are_the_catalogue() -> None:
    """Default thresholds and declared checks are the same ids."""
    file = thresholds_of(LoadPlan("http://a.test", baseline_url="http://b.test"))
    ids = {f"load/{k}/{t.expression.aggregation}" for k, ts in file.thresholds.by_metric.items() for t in ts}
    assert {spec.id for spec in SPECS} == ids | {"load/run-valid"}


def test_no_base_url_is_unknown_everywhere(tmp_path: Path) -> None:
    """Without a target every check has evidence, and none a verdict."""
    found = load_process.load(Target(TargetKind.STAGING), options(), tmp_path)
    assert {e.check for e in found} == {spec.id for spec in SPECS}
    assert {e.outcome for e in found} == {Outcome.UNKNOWN}


def test_a_load_that_broke_says_at_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report quotes the last words of the process."""
    monkeypatch.setattr(load_process, "_run", lambda *_, **__: (1, "Traceback\nOSError: File too large\n"))
    found = load_process.load(Target(TargetKind.STAGING, "http://127.0.0.1:9"), options(), tmp_path)
    assert {e.outcome for e in found} == {Outcome.UNKNOWN}
    assert all("(exit 1: OSError: File too large)" in e.message for e in found)


@pytest.mark.parametrize("crowded", ["this machine was too busy", ""])
def test_a_crowded_machine_is_told_to_the_look_at_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crowded: str
) -> None:
    """The companies of a load for which the machine had no time are listed; those of an earlier run are not."""
    folder = tmp_path / load_process.FOLDER
    folder.mkdir()
    (folder / load_process.CROWDED).write_text("earlier")

    def run(*_: object, **__: object) -> tuple[int, str]:
        (folder / COMPANIES).write_text("one\n")
        (folder / "result.json").write_text(json.dumps(result(crowded=crowded)))
        return 0, ""

    monkeypatch.setattr(load_process, "_run", run)
    load_process.load(Target(TargetKind.STAGING, "http://127.0.0.1:9"), options(), tmp_path)
    listed = folder / load_process.CROWDED
    assert (listed.read_text() if listed.exists() else "") == ("one\n" if crowded else "")


def test_any_url_is_loaded_with_a_thresholds_file(tmp_path: Path) -> None:
    """`--url URL --thresholds FILE` needs no deployment and no Python; its own thresholds are the required checks."""
    file = tmp_path / "t.js"
    file.write_text(
        "export const options = { thresholds: { http_req_failed: ['rate<0.02'], http_reqs: ['count>50'] } };"
    )
    nobody = Target(TargetKind.PRODUCTION)
    with target(Behaviour()) as url:
        chosen = options("--url", url, "--thresholds", str(file), "--rate", "200", "--duration", "1")
        specs = load_process.checks_of(nobody, chosen, tmp_path)
        found = by_check(load_process.load(nobody, chosen, tmp_path))
    assert set(found) == {spec.id for spec in specs}
    assert {e.outcome for e in found.values()} == {Outcome.PASS}, [e.message for e in found.values()]
    result = json.loads((tmp_path / "load" / "result.json").read_text(encoding="utf-8"))
    assert result["model"] == "open"
    assert broken_rules("load-result", result) == []
    assert broken_rules("load-result", {**result, "valid": "yes"}), "the control"


@pytest.mark.parametrize("text", ["{http_req_failed: ['rate<2%']}", "{nonsense: ['rate<1']}"])
def test_a_thresholds_file_of_no_use_is_a_configuration_error(text: str, tmp_path: Path) -> None:
    """Named by file, line and column, before anything is loaded."""
    file = tmp_path / "t.js"
    file.write_text(text)
    for act in (load_process.load, load_process.checks_of):
        with pytest.raises(ConfigError, match=r"t\.js:1:\d+: "):
            act(
                Target(TargetKind.PRODUCTION),
                options("--url", "http://127.0.0.1:9/", "--thresholds", str(file)),
                tmp_path,
            )


def test_gate_load_needs_no_target_for_a_url(tmp_path: Path) -> None:
    """The command line loads the URL, brings nothing up, and requires what the file names, nothing of the checklist."""
    file = tmp_path / "t.js"
    file.write_text("{http_req_failed: ['rate<0.02']}")
    words = ("--rate", "200", "--duration", "1", "--thresholds", str(file), "--output", str(tmp_path / "out"), "--json")
    with target(Behaviour()) as url:
        done = subprocess.run(
            [sys.executable, "-m", "gates.cli", "load", "--url", url, *words],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(load_process.ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"] == {"pass": 2, "fail": 0, "unknown": 0, "not_applicable": 0}
    assert "bringing up" not in done.stderr


def test_a_url_alone_has_the_thresholds_that_any_url_has(tmp_path: Path) -> None:
    """Without a file: failures and latency; a lag or an agent is not expected of it."""
    specs = load_process.checks_of(Target(TargetKind.PRODUCTION), options("--url", "http://127.0.0.1:9/"), tmp_path)
    assert [s.id for s in specs] == ["load/run-valid", "load/http_req_failed/rate", "load/http_req_duration/p95"]


def test_the_load_of_a_whole_run_leaves_the_companies_of_its_drills_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the list to which the drills append; a load alone reads none."""
    plans: list[dict[str, Any]] = []

    def measured(plan: dict[str, Any], *_: object) -> list[Evidence]:
        plans.append(plan)
        return []

    monkeypatch.setattr(load_process, "_measure", measured)
    one = Target(TargetKind.STAGING, "http://127.0.0.1:9")
    for given in (OF_A_RUN, options()):
        load_process.load(one, given, tmp_path)
    companies = Context(one, Settings(), tmp_path, "run").companies
    assert [load_plan(json.dumps(plan)).drilled for plan in plans] == [str(companies), ""]


@pytest.mark.parametrize(("words", "calls"), [((), 3), (("--spare-test-company",), 0)])
def test_a_whole_run_leaves_the_calls_of_the_test_company_to_the_drill(words: tuple[str, ...], calls: int) -> None:
    """Without companies of its own the load makes three limited calls for TEST_COMPANY_ID, in a whole run none."""
    company = "00000000-0000-4000-8000-000000000001"
    one = Target(TargetKind.STAGING, "http://127.0.0.1:9", test_company_id=company)
    work = Workload(
        load_plan(json.dumps(load_process.plan_of(one, options(*words)))),
        Credentials(hmac_secret="0123456789abcdef"),
        parse_address(one.base_url),
    )
    made = [work.call("replay") for _ in range(4)]
    assert sum(call is not None for call in made) == calls


def test_the_load_signs_by_the_target_s_clock() -> None:
    """A gate whose clock is an hour ahead is not locked out: that would look like a release that fails."""
    plan = LoadPlan("http://127.0.0.1:9", tenants=(Tenant("a", ("1",)),), clock_offset_s=-3600.0)
    work = Workload(plan, Credentials(hmac_secret="0123456789abcdef"), parse_address(plan.base_url))
    made = work.event()
    assert made is not None
    found = re.search(rb"(?i)x-transbot-signature: t=([0-9]+),", made[0].data)
    assert found is not None
    assert abs(int(found[1]) - (time.time() - 3600)) < 60


def test_a_whole_run_keeps_its_companies_and_spares_the_test_company() -> None:
    """What `gate run` asks the load stage for."""
    asked = OF_A_RUN
    assert (asked.keep_tenants, asked.spare_test_company, asked.profile) == (True, True, "quick")


def test_a_missing_thresholds_file_is_a_configuration_error(tmp_path: Path) -> None:
    """The path is named."""
    with pytest.raises(ConfigError, match=r"none\.js:1:1:"):
        load_process.plan_of(Target(TargetKind.PRODUCTION), options("--thresholds", str(tmp_path / "none.js")))


def test_no_secret_is_in_the_plan() -> None:
    """The plan may be kept and shown: secrets stay in the environment."""
    planted = Target(
        TargetKind.STAGING, "http://u:planted-pw@X:1/p", ("planted-hmac-secret",),
        admin_jwt="planted-jwt", jwt_secret="planted-key",
        database_url="postgresql://u:planted-password@h/d", baseline_url="http://planted@b",
    )  # fmt: skip
    plan = load_process.plan_of(planted, options())
    assert "planted" not in json.dumps(plan)
    assert (plan["base_url"], plan["baseline_url"]) == ("http://X:1/p", "http://b")
    of_url = load_process.plan_of(planted, options("--url", "https://u:planted@h/p?q=a@b"))
    assert of_url["base_url"] == "https://h/p?q=a@b"


def trend(values: list[float]) -> TrendSink:
    return TrendSink(array("d", values))


@pytest.mark.parametrize(
    ("factor", "outcome"), [(1.0, "pass"), (1.05, "pass"), (1.5, "fail"), (0.5, "pass"), (1.1, "unknown")]
)
def test_a_baseline_counts_only_what_noise_does_not_explain(factor: float, outcome: str) -> None:
    """A tenth more is within what runs differ by; half more is not."""
    before = trend([100.0 + n * 0.01 for n in range(400)])
    after = trend([(100.0 + n * 0.01) * factor for n in range(400)])
    assert compare(before, after, 95.0, trend([1.0] * 200))["outcome"] == outcome


def test_a_starved_gate_is_no_change_of_the_release() -> None:
    """Half more, all of which the null requests took as well, is not the release's; three times as much is."""
    before, null = trend([100.0] * 400), trend([1.0] * 100 + [60.0] * 100)
    assert compare(before, trend([150.0] * 400), 95.0, null)["outcome"] == "unknown"
    assert compare(before, trend([300.0] * 400), 95.0, null)["outcome"] == "fail"
