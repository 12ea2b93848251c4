"""The story of a run over small suites and a small target: order, rounds, what is left on disk, and secrets."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from gates import record
from gates.contract.scope import WHOLE
from gates.deployment.target import Target
from gates.errors import CannotWork
from gates.evidence import Evidence, Outcome, TargetKind
from gates.evidence_file import read_lines
from gates.operator.one_stage import run_stage
from gates.reports import webhook
from gates.request import RunRequest
from gates.run import run_gate
from gates.stages.context import Context, Progress, StageReport
from gates.stages.preflight.endpoints import REACHABLE
from gates.verdict import Action, Decision, Verdict
from tests.gates.reports.schemas import broken_rules
from tests.gates.small_run import CATALOGUE, COMPANY, SECRET, change, spec, told, written

SUITES = {"data before", "drill", "data after"}


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


def test_the_target_is_let_go_once_all_was_seen_and_before_the_reports(asked: RunRequest) -> None:
    """What brought it up can take it down meanwhile: nothing more is asked of it."""
    found: list[tuple[int, bool]] = []
    evidence, report = asked.out / "evidence.ndjson", asked.out / "report.html"
    run_gate(dataclasses.replace(asked, let_go=lambda: found.append((len(read_lines(evidence)), report.exists()))))
    assert found == [(len(read_lines(evidence)), False)]
    assert report.exists()


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
def test_a_broken_stage_is_unknown_and_says_why(asked: RunRequest, processes: set[str], main: str, words: str) -> None:
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


SLOW, LOST = "load/http_req_duration/p95", "load/events_lost/count"


@pytest.mark.parametrize(
    ("beside", "alone", "made", "decision"),
    [
        ({}, {}, 1, Decision.PROMOTE),
        ({SLOW: Outcome.FAIL}, {}, 2, Decision.PROMOTE),
        ({SLOW: Outcome.FAIL}, {SLOW: Outcome.FAIL}, 2, Decision.ROLLBACK),
        ({SLOW: Outcome.PASS}, {SLOW: Outcome.FAIL}, 1, Decision.PROMOTE),
        ({LOST: Outcome.FAIL}, {}, 2, Decision.ROLLBACK),
        ({SLOW: Outcome.UNKNOWN}, {SLOW: Outcome.UNKNOWN}, 2, Decision.HOLD),
        ({REACHABLE.id: Outcome.UNKNOWN}, {}, 1, Decision.HOLD),
    ],
)
def test_a_load_beside_drills_counts_if_it_passes(
    asked: RunRequest,
    monkeypatch: pytest.MonkeyPatch,
    beside: dict[str, Outcome],
    alone: dict[str, Outcome],
    made: int,
    decision: Decision,
) -> None:
    """Else the target is loaded again, alone, and what was counted beside them stands. A dead target is not."""
    loads: list[dict[str, Outcome]] = []
    removed: list[int] = []

    def load(_target: Target, _out: Path) -> list[Evidence]:
        loads.append(seen := alone if loads else beside)
        if REACHABLE.id in seen:
            return [Evidence(REACHABLE.id, Outcome.UNKNOWN, "it is gone", details={"unreachable": True})]
        return [
            Evidence(check, seen.get(check, Outcome.PASS), "said", samples=60) for check in (SLOW, LOST, "load/small")
        ]

    @contextmanager
    def drills(context: Context, during: Callable[[], None]) -> Iterator[Callable[[], list[StageReport]]]:
        def look() -> list[StageReport]:
            during()
            context.write([written(s, context, before=False) for s in context.applicable(("drill/",))])
            return []

        yield look

    def after_load(_target: Target, _out: Path) -> str:
        removed.append(len(loads))
        return ""

    monkeypatch.setattr("gates.run.drills", drills)
    catalogue = (*CATALOGUE, spec(SLOW), spec(LOST))
    policy = dataclasses.replace(asked.policy, catalogue=catalogue, scope=WHOLE)
    monkeypatch.setattr("gates.decision.floor.FLOOR", {})
    verdict = run_gate(dataclasses.replace(asked, load=load, after_load=after_load, policy=policy))
    reason = "DATABASE_URL is not set"  # a promotion cannot be carried out
    promoted = verdict.decision is Decision.HOLD and reason in verdict.reason
    assert (Decision.PROMOTE if promoted else verdict.decision) is decision, verdict.reason
    assert (len(loads), removed) == (made, [*range(1, made), made])


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
