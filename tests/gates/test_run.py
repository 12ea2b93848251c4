"""The story of a run over small suites and a small target: order, rounds, what is left on disk, and secrets."""

from __future__ import annotations

import dataclasses
import datetime as dt
import errno
import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from gates import record, reports, run
from gates.checks.observation import Observer
from gates.contract.scope import WHOLE
from gates.decision.policy_file import parse
from gates.deployment.target import Target
from gates.errors import CannotWork, NotRolledBack
from gates.evidence import CheckSpec, Evidence, Outcome, Severity, TargetKind, Where, stamp
from gates.evidence_file import Unwritten, read_lines
from gates.one_stage import run_stage
from gates.reports import render, webhook
from gates.reports.terminal import verdict_text
from gates.request import RunRequest
from gates.run import run_gate
from gates.stages import suite
from gates.stages.context import Context, Progress, now
from gates.stages.preflight import endpoints
from gates.stages.suite import Begun
from gates.verdict import NOT_ROLLED_BACK, Action, Decision, Verdict
from tests.gates.reports.schemas import broken_rules
from tests.small_target import listening

COMPANY = "11111111-1111-4111-8111-111111111111"
SECRET = "planted-secret-0123456789"
ROOT = Path(__file__).resolve().parents[2]

SMALL = """
import os, time
from pathlib import Path
import pytest
from gates.checks.recorder import check

@pytest.fixture(autouse=True)
def ground(seen):
    seen.control("x")
    seen.count()
"""
DRILL = (
    SMALL
    + '''
@check("drill/small/first", phase="first")
def test_first(seen, request):
    """A sentinel."""
    Path(request.config.getoption("--companies")).open("a").write("COMPANY\\n")

@check("drill/small/main", after=("drill/small/first",))
def test_main(seen):
    """A drill."""
    print(os.environ["TRANSBOT_HMAC_SECRET"])
    seen.details["said"] = os.environ["TRANSBOT_HMAC_SECRET"]
    seen.witness = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLXRoYXQtd29ya3M"
    MAIN

@check("drill/small/last", phase="last")
def test_last(seen):
    """Alone."""
'''
)
SQL = (
    SMALL
    + '''
@check("sql/small/data")
def test_data(seen, request):
    """Data."""
    excluded = Path(request.config.getoption("--exclude-companies")).read_text().split()
    seen.value(len(excluded), 10, "companies")

@check("alert/small")
def test_alert(seen, request):
    """An alert that has its samples only after the load."""
    seen.require(request.config.getoption("--round") != "before", "too few samples")
'''
)
OPTIONS = """
def pytest_addoption(parser):
    for name in ("--companies", "--lease", "--trip-ms", "--at-once", "--beside"):
        parser.addoption(name)
    for name in ("--exclude-companies", "--manifest", "--state", "--steps", "--flag", "--cohorts", "--bake-minutes"):
        parser.addoption(name)
    for name in ("--spot-folder", "--alert-folder"):
        parser.addoption(name, action="append")
"""


class Handler(BaseHTTPRequestHandler):
    """A target that is alive, ready and of a release; `away` answers of /version it gives as a proxy does."""

    release, away = "r1", 0

    def do_GET(self) -> None:
        body = json.dumps({"release": self.release, "drill_agent": True}).encode()
        refused = self.path == "/version" and Handler.away > 0
        Handler.away -= refused
        self.send_response(503 if refused else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """Where the small target answers."""
    with listening(Handler) as url:
        yield url


def spec(check: str, phase: str = "main") -> CheckSpec:
    return CheckSpec(check, "c", "c", Severity.PAGE, Where.READ_ONLY, phase=phase)


WITHOUT_SQL = (endpoints.REACHABLE, endpoints.RELEASE, endpoints.READY)
CATALOGUE = (
    *WITHOUT_SQL,
    spec("drill/small/first", "first"),
    spec("drill/small/main"),
    spec("drill/small/last", "last"),
    spec("sql/small/data"),
    spec("alert/small"),
    spec("load/small"),
)


SUITES = {"data before", "drill", "data after"}
HARM = "assert False"


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the suites that run as processes. What the others see is written down without one."""
    names: set[str] = set()
    ran, start = suite._ran, suite._start

    def started(command: list[str], context: Context, output: int, temporary: Path, waits: int) -> Any:
        return start(command if temporary.name in names else ["/bin/true"], context, output, temporary, waits)

    def run_or_write(one: Begun, context: Context, *limits: Any) -> tuple[int | None, str]:
        if one.suite.name in names:
            return ran(one, context, *limits)
        context.write([written(s, context, before="before" in one.suite.name) for s in one.suite.expected])
        return 0, ""

    monkeypatch.setattr(suite, "_ran", run_or_write)
    monkeypatch.setattr(suite, "_start", started)
    return names


def written(one: CheckSpec, context: Context, *, before: bool) -> Evidence:
    """What the small suite writes about its check. The test of the stages' order sees that it is the same."""
    observer, outcome, message = Observer(context.target), Outcome.PASS, ""
    observer.control("x")
    observer.count()
    if one.id == "drill/small/first":
        context.companies.write_text(COMPANY, encoding="utf-8")
    if one.id == "sql/small/data":
        observer.value(len(context.companies.read_text(encoding="utf-8").split()), 10, "companies")
    if one.id == "drill/small/main" and HARM in (suite.ROOT / "drills" / "test_drills.py").read_text(encoding="utf-8"):
        outcome, message = Outcome.FAIL, HARM
    if one.id == "alert/small" and before:
        outcome, message = Outcome.UNKNOWN, "too few samples"
    line = observer.evidence_of(one, outcome, message, stamp(now()), 1.0)
    return dataclasses.replace(line, round="before" if before else "")


@pytest.fixture
def asked(tmp_path: Path, base_url: str, processes: set[str], monkeypatch: pytest.MonkeyPatch) -> RunRequest:
    """A run over the small suites."""
    for name, source in (("drills", DRILL), ("sql_checks", SQL)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "conftest.py").write_text(OPTIONS, encoding="utf-8")
        text = source.replace("MAIN", "pass").replace("COMPANY", COMPANY)
        (tmp_path / name / f"test_{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    target = Target(TargetKind.STAGING, base_url, hmac_secrets=(SECRET,), release="r1")
    file = parse("version: 1\nstages:\n  drill: {workers: 1}\n", "gate.yaml", tmp_path, dt.date(2026, 1, 1))
    policy = file.policy(CATALOGUE, target.kind, target.release, deep=False)
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "--deselect=everything -k nothing"}
    return RunRequest(target, policy, file.settings, tmp_path / "out", environ=environ, load=loaded)


def loaded(_target: Target, out: Path) -> list[Evidence]:
    (out / "load").mkdir(exist_ok=True)
    (out / "load" / "load.log").write_text(f"the secret is {SECRET}", encoding="utf-8")
    return [Evidence("load/small", Outcome.PASS, samples=60, observed=1.0, limit=2.0)]


def change(request: RunRequest, main: str) -> None:
    file = request.out.parent / "drills" / "test_drills.py"
    file.write_text(DRILL.replace("MAIN", main).replace("COMPANY", COMPANY), encoding="utf-8")


@pytest.mark.parametrize("names", [SUITES, set()], ids=["processes", "written"])
def test_a_run_passes_through_all_stages_in_their_order(
    asked: RunRequest, processes: set[str], names: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Preflight, data, drill, load, data again; the second look leaves out the companies that this run created."""
    processes |= names
    monkeypatch.setattr("gates.decision.floor.FLOOR", {})  # the small catalogue has none
    stages: list[str] = []

    def follow(progress: Progress) -> None:
        if progress.done:
            stages.append(progress.stage)

    small = dataclasses.replace(asked.policy, scope=WHOLE)  # nor has it a check of every area
    verdict = run_gate(dataclasses.replace(asked, progress=follow, policy=small))
    assert stages == ["preflight", "data before", "drill", "load", "data after"]
    lines = read_lines(asked.out / "evidence.ndjson")
    seen = [(e.check, e.round, e.observed) for e in lines if e.check == "sql/small/data"]
    assert seen == [("sql/small/data", "before", 0), ("sql/small/data", "", 1)]
    assert [e.outcome for e in lines if e.check == "alert/small"] == [Outcome.UNKNOWN, Outcome.PASS]
    assert verdict.counts.passed == len(CATALOGUE)
    # all passed, but there is no database: the flag cannot be stepped, so it is no promotion
    assert (verdict.decision, verdict.action.result) == (Decision.HOLD, "not_possible"), verdict.reason
    assert "DATABASE_URL is not set" in verdict.reason
    run = json.loads((asked.out / "run.json").read_text(encoding="utf-8"))
    assert run["companies"] == COMPANY.split()


def test_what_is_on_disk_gives_the_verdict_again_byte_for_byte(asked: RunRequest) -> None:
    """From evidence.ndjson and run.json alone."""
    run_gate(asked)
    written = (asked.out / "verdict.json").read_text(encoding="utf-8")
    assert record.recompute(asked.out).dump() == written
    (asked.out / "evidence.ndjson").write_text("", encoding="utf-8")
    assert record.recompute(asked.out).decision is Decision.HOLD


def test_no_secret_is_in_any_file_of_a_run(asked: RunRequest, processes: set[str]) -> None:
    """Planted in a test's output, its details, a token, the load stage's log; looked for in every file."""
    processes |= SUITES
    change(asked, 'assert not os.environ["TRANSBOT_HMAC_SECRET"]')
    verdict = run_gate(asked)
    assert verdict.decision is Decision.ROLLBACK
    files = [p for p in asked.out.rglob("*") if p.is_file()]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        assert SECRET.encode() not in content, path
        assert b"c2lnbmF0dXJl" not in content, path
    assert "$TRANSBOT_HMAC_SECRET" in (asked.out / "load" / "load.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("main", "words"),
    [
        ("os._exit(7)", "2 checks are unknown: the drill stage broke: exit code 7"),
        ("time.sleep(60)", "ran out of time before this was seen (limit "),
    ],
)
def test_a_stage_that_breaks_is_unknown_and_says_why(
    asked: RunRequest, processes: set[str], main: str, words: str
) -> None:
    """A crash, an overrun: the check is unknown, the rest of the run goes on, the run holds."""
    processes.add("drill")
    change(asked, main)
    settings = dataclasses.replace(asked.settings, drill_timeout_s=3 if "sleep" in main else 60)
    verdict = run_gate(dataclasses.replace(asked, settings=settings))
    assert verdict.decision is Decision.HOLD
    assert words in verdict.reason + "".join(f.message for f in verdict.findings)
    assert verdict.counts.failed == 0


def test_a_suite_that_cannot_be_collected_is_unknown(asked: RunRequest, processes: set[str]) -> None:
    """All its checks are, with what pytest said."""
    processes |= SUITES
    (asked.out.parent / "drills" / "test_drills.py").write_text("def broken(:\n", encoding="utf-8")
    verdict = run_gate(asked)
    assert verdict.decision is Decision.HOLD
    unknown = [f for f in verdict.findings if f.check.startswith("drill/")]
    assert len(unknown) == 3
    assert all("stage broke" in f.message or "ended without it" in f.message for f in unknown)


def test_a_run_that_is_cut_short_leaves_a_hold_and_no_older_promote(asked: RunRequest) -> None:
    """An old promote in the same folder is gone from the first moment on; decide says the same."""
    asked.out.mkdir()
    old = Verdict(Decision.PROMOTE, "yesterday", action=Action("promote", 10, 50, "done"))
    (asked.out / "verdict.json").write_text(old.dump(), encoding="utf-8")
    (asked.out / "report.html").write_text("promote", encoding="utf-8")

    def cut(_target: Target, _out: Path) -> list[Evidence]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_gate(dataclasses.replace(asked, load=cut))
    left = json.loads((asked.out / "verdict.json").read_text(encoding="utf-8"))
    assert (left["decision"], left["reason"]) == ("hold", "the run did not finish")
    assert record.recompute(asked.out).decision is Decision.HOLD
    assert not (asked.out / "report.html").exists()


def told(out: Path, shown: Verdict) -> set[str]:
    """What every file of a stage says became of it."""
    junit = ET.fromstring((out / "junit.xml").read_text())  # noqa: S314  -- our own file
    properties = {p.attrib["name"]: p.attrib["value"] for p in junit.iter("property")}
    page = (out / "report.html").read_text(encoding="utf-8")
    return {
        shown.title,
        record.recompute(out).title,
        properties["stage"],
        (out / "summary.md").read_text(encoding="utf-8").splitlines()[0].split(" ", 2)[2],
        page.partition("<h1>")[2].partition("</h1>")[0],
        verdict_text(shown, colour=False).strip().partition(":")[0].lower(),
    }


@pytest.mark.parametrize(
    ("main", "result", "code"), [("pass", "passed", 0), ("assert False", "failed", 20), ("1 / 0", "unknown", 10)]
)
def test_a_stage_comes_to_one_result_everywhere(
    asked: RunRequest, processes: set[str], main: str, result: str, code: int
) -> None:
    """Terminal, exit code, verdict.json, junit, summary, page, allure and `gate decide` agree; none says promote."""
    processes.add("drill")
    change(asked, main)
    shown = run_stage(asked, "drill")
    left = json.loads((asked.out / "verdict.json").read_text(encoding="utf-8"))
    assert (left["decision"], left["stage"]) == ("hold", {"name": "drill", "result": result}), left["reason"]
    assert broken_rules("verdict", left) == []
    assert (shown.exit_code, record.recompute(asked.out).exit_code) == (code, code)
    assert record.recompute(asked.out).dump() == shown.dump() == (asked.out / "verdict.json").read_text()
    assert told(asked.out, shown) == {f"drill stage {result}"}
    assert sum(left["counts"].values()) == 3
    cases = ET.fromstring((asked.out / "junit.xml").read_text()).iter("testcase")  # noqa: S314  -- as above
    assert {f"{c.attrib['classname']}.{c.attrib['name']}" for c in cases} == {
        f"drill.small.{name}" for name in ("first", "main", "last")
    }
    allure = (asked.out / "allure-results").glob("*-result.json")
    assert sum("drill/" in json.loads(path.read_text(encoding="utf-8"))["fullName"] for path in allure) == 3


def test_a_folder_that_cannot_be_written_is_said(asked: RunRequest, tmp_path: Path) -> None:
    """The gate cannot work there."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(CannotWork, match="Correct --output"):
        run_gate(dataclasses.replace(asked, out=tmp_path / "file"))


def test_a_run_json_that_is_not_one_is_said(tmp_path: Path) -> None:
    """Nothing is recomputed from a damaged record."""
    for text in ("", "[]", '{"format": 1, "finished_at": "x"}', '{"format": 2, "finished_at": "x"}', "[" * 10**5):
        (tmp_path / "run.json").write_text(text, encoding="utf-8")
        with pytest.raises(CannotWork, match=r"run\.json"):
            record.recompute(tmp_path)


@pytest.mark.parametrize("broken", [False, True])
def test_the_companies_of_the_load_count_until_the_data_was_seen_again(asked: RunRequest, broken: bool) -> None:
    """They are removed after the second look, and just so where a stage cannot work."""
    seen: list[str] = []

    def after_load(_target: Target, out: Path) -> str:
        seen.extend(e.check for e in read_lines(out / "evidence.ndjson") if e.check.startswith("sql/") and not e.round)
        seen.append("removed")
        return "they were not removed: planted-secret-0123456789"

    def load(_target: Target, _out: Path) -> list[Evidence]:
        raise CannotWork("no load")

    request = dataclasses.replace(asked, after_load=after_load, load=load if broken else asked.load)
    if broken:
        with pytest.raises(CannotWork):
            run_gate(request)
        assert seen == ["removed"]
        return
    run_gate(request)
    assert seen == ["sql/small/data", "removed"]
    last = json.loads((asked.out / "run.json").read_text())["stages"][-1]
    assert (last["stage"], last["error"]) == ("clean up", "they were not removed: $TRANSBOT_HMAC_SECRET")


def test_the_checks_of_a_thresholds_file_replace_those_of_the_checklist(asked: RunRequest) -> None:
    """What the file does not name is not required; what it names is, and no target is looked at for a URL alone."""

    def load(_target: Target, _out: Path) -> list[Evidence]:
        return [Evidence("load/own", Outcome.PASS, samples=60, observed=1.0, limit=2.0)]

    own = (spec("load/own"), spec("load/other"))
    policy = dataclasses.replace(asked.policy, catalogue=own)
    request = dataclasses.replace(asked, policy=policy, load=load, url_only=True, target=Target(TargetKind.STAGING))
    verdict = run_stage(request, "load")
    assert [(f.check, f.outcome) for f in verdict.findings] == [("load/other", "unknown")]
    left = json.loads((asked.out / "verdict.json").read_text(encoding="utf-8"))
    assert (
        (left["counts"]["pass"], left["counts"]["unknown"]) == (verdict.counts.passed, verdict.counts.unknown) == (1, 1)
    )
    assert {e.check for e in read_lines(asked.out / "evidence.ndjson")} == {"load/own", "load/other"}


@pytest.mark.parametrize("taken", [True, False])
def test_the_verdict_is_posted_when_everything_is_done(
    asked: RunRequest, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Slack is sent is on disk already; a refusal is a warning and a line in run.json, and the verdict stands."""
    sent: list[str] = []
    url = "https://hooks.invalid/planted-path-secret"

    def post(where: str, body: str) -> str:
        assert where == url
        assert json.loads((asked.out / "verdict.json").read_text())["action"]["result"] != "pending"
        assert (asked.out / "report.html").exists()
        sent.append(json.loads(body)["text"])
        return "" if taken else "the webhook answered 500"

    monkeypatch.setattr(webhook, "post", post)
    warned: list[str] = []
    target = dataclasses.replace(asked.target, slack_webhook_url=url)
    verdict = run_gate(dataclasses.replace(asked, target=target, warn=warned.append))
    assert [text.partition(":")[0] for text in sent] == [verdict.decision.value]
    run = json.loads((asked.out / "run.json").read_text())
    assert run["slack"] == {"posted": taken, "error": "" if taken else "the webhook answered 500"}
    assert bool(warned) is not taken
    assert record.recompute(asked.out).dump() == verdict.dump()
    assert all("planted-path-secret" not in p.read_text() for p in asked.out.rglob("*") if p.is_file())


def test_a_dry_run_tells_nobody(asked: RunRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows what would be done; a channel would take it for done."""
    monkeypatch.setattr(webhook, "post", lambda *_: pytest.fail("it was posted"))
    target = dataclasses.replace(asked.target, slack_webhook_url="https://hooks.invalid/x")
    run_gate(dataclasses.replace(asked, target=target, dry_run=True))
    assert "slack" not in json.loads((asked.out / "run.json").read_text())


# --- a disk that is full, a folder that is gone, a gate that is killed ----------------------------------------------


@pytest.fixture
def acted(monkeypatch: pytest.MonkeyPatch) -> list[Decision]:
    """The decisions that were acted upon; each act succeeds."""
    seen: list[Decision] = []

    def act(verdict: Verdict, *_order: object, **_tell: object) -> Action:
        seen.append(verdict.decision)
        if verdict.decision is Decision.PROMOTE:
            return Action("promote", 10, 50, "done", "outbox.enabled went from 10 % to 50 %")
        return Action("rollback", 10, 0, "done", "outbox.enabled was switched off in 0.1 s", flag="off")

    monkeypatch.setattr(run, "act", act)
    return seen


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def promoting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small catalogue lacks what every promotion needs."""
    monkeypatch.setattr(run, "decide", lambda *_: Verdict(Decision.PROMOTE, "all passed"))


@pytest.mark.parametrize(("main", "word"), [("pass", "promote"), (HARM, "rollback")])
def test_what_is_about_to_be_done_is_on_disk_before_it_is_done(
    asked: RunRequest, main: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate that is killed between the commit and its report leaves a hold that says so, here and in gate decide."""
    change(asked, main)
    if word == "promote":
        promoting(monkeypatch)

    def killed(*_order: object, **_tell: object) -> Action:
        left = json.loads((asked.out / "verdict.json").read_text(encoding="utf-8"))
        assert f"it was about to {word} outbox.enabled" in left["reason"]
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "act", killed)
    with pytest.raises(KeyboardInterrupt):
        run_gate(asked)
    again = record.recompute(asked.out)
    assert (again.decision, again.exit_code) == (Decision.HOLD, 10)
    assert "whether that was done is not known: see gate flags" in again.reason
    assert again.dump() == (asked.out / "verdict.json").read_text(encoding="utf-8")


def test_a_promotion_that_cannot_be_written_down_first_is_not_made(
    asked: RunRequest, acted: list[Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up before the act: nothing is done, exit code 4, and what is on disk says hold."""
    promoting(monkeypatch)

    def load(target: Target, out: Path) -> list[Evidence]:
        monkeypatch.setattr(record, "write", full)
        return loaded(target, out)

    with pytest.raises(CannotWork, match="No space left"):
        run_gate(dataclasses.replace(asked, load=load))
    assert not acted
    assert json.loads((asked.out / "verdict.json").read_text(encoding="utf-8"))["decision"] == "hold"


def test_a_rollback_that_cannot_be_written_down_is_made(
    asked: RunRequest, acted: list[Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Harm was seen: the flag goes off, and what was done is in the error."""
    change(asked, HARM)

    def load(target: Target, out: Path) -> list[Evidence]:
        monkeypatch.setattr(record, "write", full)
        return loaded(target, out)

    with pytest.raises(CannotWork, match=r"outbox\.enabled was switched off in 0\.1 s.*No space left") as told:
        run_gate(dataclasses.replace(asked, load=load))
    assert (acted, told.value.exit_code) == ([Decision.ROLLBACK], 4)


def test_a_rollback_that_fails_on_a_full_disk_is_exit_code_21(
    asked: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no database: the headline and the SQL are in the error, in place of every report."""
    change(asked, HARM)

    def load(target: Target, out: Path) -> list[Evidence]:
        monkeypatch.setattr(record, "write", full)
        return loaded(target, out)

    with pytest.raises(NotRolledBack, match=r"THE FLAG MAY STILL BE ON.*UPDATE public\.feature_flags") as told:
        run_gate(dataclasses.replace(asked, load=load))
    assert told.value.exit_code == NOT_ROLLED_BACK


def test_a_report_that_breaks_hides_no_failed_rollback(asked: RunRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends a run after that: exit code 21, the headline and the SQL."""
    change(asked, HARM)

    def broken(*_given: object, **_more: object) -> str:
        raise MemoryError

    monkeypatch.setattr(reports, "write", broken)
    monkeypatch.setattr("gates.run.tell", broken)
    with pytest.raises(NotRolledBack, match=r"THE FLAG MAY STILL BE ON.*MemoryError.*UPDATE public\.feature_flags"):
        run_gate(asked)


@pytest.mark.parametrize(("main", "decisions"), [("pass", []), (HARM, [Decision.ROLLBACK])])
def test_a_folder_that_is_removed_in_the_middle_stops_a_promotion_and_no_rollback(
    asked: RunRequest, acted: list[Decision], main: str, decisions: list[Decision]
) -> None:
    """What was seen until then counts for harm alone."""
    change(asked, main)

    def load(_target: Target, out: Path) -> list[Evidence]:
        shutil.rmtree(out)
        return [Evidence("load/small", Outcome.PASS, samples=60, observed=1.0, limit=2.0)]

    with pytest.raises(CannotWork):
        run_gate(dataclasses.replace(asked, load=load))
    assert acted == decisions


@pytest.mark.parametrize(
    ("release", "away", "outcome"),
    [("r2", 0, Outcome.FAIL), ("r1", 15, Outcome.PASS), ("r1", 10**6, Outcome.UNKNOWN)],
    ids=["another release", "a restart", "a long restart"],
)
def test_the_release_is_looked_at_again_when_all_else_was_seen(
    release: str, away: int, outcome: Outcome, asked: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that came during the load is harm; instances that restart are waited for, and not for ever."""
    monkeypatch.setattr("gates.decision.floor.FLOOR", {})
    monkeypatch.setattr("gates.stages.preflight.PATIENCE_S", 0.1 if away > 100 else 30.0)
    monkeypatch.setattr("gates.stages.preflight.POLL_S", 0.01)
    monkeypatch.setattr(Handler, "release", "r1")
    monkeypatch.setattr(Handler, "away", 0)

    def load(target: Target, out: Path) -> list[Evidence]:
        Handler.release, Handler.away = release, away
        return loaded(target, out)

    verdict = run_gate(dataclasses.replace(asked, load=load, policy=dataclasses.replace(asked.policy, scope=WHOLE)))
    lines = [e for e in read_lines(asked.out / "evidence.ndjson") if e.check == endpoints.RELEASE.id]
    assert [(e.round, e.outcome) for e in lines] == [("before", Outcome.PASS), ("", outcome)]
    assert (verdict.decision is Decision.ROLLBACK) is (outcome is Outcome.FAIL)
    assert (verdict.counts.passed == len(CATALOGUE)) is (outcome is Outcome.PASS)
    if outcome is Outcome.FAIL:
        assert "at the end of the run, /version says r2; allowed: r1" in verdict.reason


def test_harm_that_finds_no_room_on_disk_is_acted_upon(
    asked: RunRequest, acted: list[Decision], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very line of the failure could not be written."""

    def no_room(path: Path, evidence: list[Evidence], _run: str) -> None:
        raise Unwritten(f"{path}: No space left on device", (*evidence,))

    def load(_target: Target, _out: Path) -> list[Evidence]:
        monkeypatch.setattr("gates.stages.context.write_lines", no_room)
        return [Evidence("load/small", Outcome.FAIL, samples=60, observed=3.0, limit=2.0)]

    with pytest.raises(CannotWork, match="was switched off"):
        run_gate(dataclasses.replace(asked, load=load))
    assert acted == [Decision.ROLLBACK]


def test_without_a_database_a_rollback_is_exit_code_21_in_every_report(asked: RunRequest) -> None:
    """The flag was not switched off: headline and SQL are in each of them, and gate decide says the same."""
    change(asked, HARM)
    verdict = run_gate(asked)
    assert (verdict.decision, verdict.exit_code) == (Decision.ROLLBACK, NOT_ROLLED_BACK)
    assert record.recompute(asked.out).exit_code == NOT_ROLLED_BACK
    evidence, file = read_lines(asked.out / "evidence.ndjson"), json.loads((asked.out / "run.json").read_text())
    for kind in ("html", "markdown", "junit", "slack"):
        text = render(kind, verdict, evidence, CATALOGUE, file)
        assert "THE FLAG MAY STILL BE ON" in text, kind
        assert "UPDATE public.feature_flags SET enabled = false WHERE key" in text, kind
    shown = str(verdict_text(verdict, colour=False))
    assert shown.lstrip().startswith("THE FLAG MAY STILL BE ON")
    assert "UPDATE public.feature_flags SET enabled = false WHERE key = 'outbox.enabled';" in shown


def test_a_collector_that_is_not_there_changes_nothing(asked: RunRequest) -> None:
    """OpenTelemetry is told last of all; what became of that is a warning, and stands in run.json."""
    told: list[str] = []
    environ = {**asked.environ, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:9/v1/metrics"}
    verdict = run_gate(dataclasses.replace(asked, environ=environ, warn=told.append))
    assert verdict.decision is run_gate(dataclasses.replace(asked, out=asked.out.with_name("plain"))).decision
    (said,) = [one for one in told if "OpenTelemetry" in one]
    kept = json.loads((asked.out / "run.json").read_text(encoding="utf-8"))["telemetry"]["error"]
    assert kept in said
    assert "The verdict stands all the same" in said


def test_an_old_promote_does_not_survive_on_a_full_disk(asked: RunRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one byte can be written, and yet nobody finds yesterday's answer there."""
    asked.out.mkdir()
    (asked.out / "verdict.json").write_text(Verdict(Decision.PROMOTE, "yesterday").dump(), encoding="utf-8")
    (asked.out / "run.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(record, "write", full)
    with pytest.raises(CannotWork, match="No space left"):
        run_gate(asked)
    assert not list(asked.out.iterdir())
