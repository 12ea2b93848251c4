"""The reports: golden files, and nothing of the target's text that could act.

`python -m tests.gates.reports.test_reports` writes the golden files anew.
"""

import dataclasses
import json
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import pytest

from gates import reports
from gates.contract.contract import contract
from gates.decision.assessment import NO_EVIDENCE
from gates.evidence import CheckSpec, Evidence, JsonValue, Outcome, Severity, Where
from gates.reports import outputs
from gates.reports.allure import CATEGORIES, result_of
from gates.reports.formats import charts
from gates.reports.formats.format import ReportSource
from gates.reports.formats.junit import junit
from gates.reports.formats.rows import OUTCOMES, Row
from gates.reports.page import SCRIPT, STYLE
from gates.reports.terminal import groups_text, progress_line, table, verdict_text
from gates.stages.context import Progress
from gates.verdict import Action, Counts, Decision, Effect, Exempt, Finding, Margin, Verdict

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "reports"


def spec(check: str, severity: Severity = Severity.PAGE) -> CheckSpec:
    return CheckSpec(check, f"The promise of {check}.", "The cost.", severity, Where.READ_ONLY)


CATALOGUE = [
    spec("drill/idempotency/same-key-other-payload"),
    spec("drill/proof/hmac-refused"),
    spec("load/outbox_lag_ms/p95"),
    spec("sql/spot/replay-runs-unique"),
    spec("sql/spot/audit-chain", Severity.WARN),
    spec("drill/recovery/kill-worker"),
]
PROMISES = {s.id: f"{s.claim} What it costs: {s.cost}" for s in CATALOGUE}
EVIDENCE = [
    Evidence("drill/proof/hmac-refused", Outcome.PASS, samples=4, observed=401, limit=401, duration_ms=12.5),
    Evidence(
        "load/outbox_lag_ms/p95", Outcome.PASS, samples=90, observed=4100.0, limit=5000, unit="ms", duration_ms=9000
    ),
    Evidence("drill/idempotency/same-key-other-payload", Outcome.FAIL, duration_ms=31.0),
]
FAILED = Finding(
    "drill/idempotency/same-key-other-payload",
    "fail",
    "page",
    Effect.ROLLBACK,
    "same key, other max: observed 200; allowed: 422 idempotency_key_reused",
    200,
    422,
    samples=1,
    witness={"request": {"status": 200}, "twin": {"status": 422}},
    reproduce="curl -i -X POST http://x/dlq-replay",
)
UNKNOWN = Finding("sql/spot/replay-runs-unique", "unknown", "page", Effect.HOLD, NO_EVIDENCE)
BLOCKED = Finding(
    "sql/spot/audit-chain", "unknown", "warn", Effect.HOLD, "blocked", blocked_by="sql/spot/replay-runs-unique"
)
COMMON = {
    "release": "r-1",
    "target": "staging",
    "started_at": "2026-01-02T12:00:00.000+00:00",
    "finished_at": "2026-01-02T12:00:40.000+00:00",
    "policy_digest": "sha256:abc",
    "not_applicable": (Exempt("drill/recovery/kill-worker", "may run on reference targets only"),),
    "margin": Margin("load/outbox_lag_ms/p95", 4100.0, 5000.0, "ms", 0.18),
}
VERDICTS = {
    "promote": Verdict(
        Decision.PROMOTE,
        "all 5 required checks passed; outbox.enabled went from 10 % to 50 %",
        counts=Counts(5, 0, 0, 1),
        action=Action("promote", 10, 50, "done"),
        **COMMON,  # type: ignore[arg-type]
    ),
    "hold": Verdict(
        Decision.HOLD,
        f"sql/spot/replay-runs-unique is unknown: {NO_EVIDENCE}",
        counts=Counts(3, 0, 2, 1),
        findings=(UNKNOWN, BLOCKED),
        ends_when=("sql/spot/replay-runs-unique is observed",),
        action=Action("none", 10, 10, "nothing_to_do"),
        **COMMON,  # type: ignore[arg-type]
    ),
    "rollback": Verdict(
        Decision.ROLLBACK,
        "drill/idempotency/same-key-other-payload failed: observed 200, allowed 422",
        counts=Counts(2, 1, 2, 1),
        findings=(FAILED, UNKNOWN, BLOCKED),
        action=Action("rollback", 10, 0, "done", recovery={"decision_to_off_s": 0.01, "held": 3, "proved": True}),
        **COMMON,  # type: ignore[arg-type]
    ),
}
RUN: dict[str, JsonValue] = {
    "run_id": "0a1b2c3d",
    "gate": "0.1.0",
    "stages": [{"stage": "drill", "seconds": 9.8, "exit_code": 1, "error": ""}],
}
KINDS = {"html": "html", "markdown": "md", "junit": "xml", "slack": "json"}


def by_name(text: str) -> str:
    """The HTML with names in place of its style and script, whose content the digests pin."""
    for path in (STYLE, SCRIPT):
        text = text.replace(path.read_text(encoding="utf-8"), path.name)
    return text


def rendered() -> dict[str, str]:
    """Every golden file, by name."""
    texts = {
        f"{name}.{ending}": by_name(reports.render(kind, verdict, EVIDENCE, CATALOGUE, RUN))
        for name, verdict in VERDICTS.items()
        for kind, ending in KINDS.items()
    }
    for name, verdict in VERDICTS.items():
        texts[f"{name}.txt"] = verdict_text(verdict, colour=False, folder="gate-out", promises=PROMISES)
    return texts


@pytest.mark.parametrize("name", sorted(rendered()))
def test_a_report_looks_as_agreed(name: str) -> None:
    """The report equals its golden file; read the difference before you renew it."""
    assert rendered()[name] == (GOLDEN / name).read_text(encoding="utf-8")


def test_a_run_that_did_not_finish_knows_nothing_and_opens_nothing() -> None:
    """Every check is counted as unknown, and the one reason is said once."""
    page = reports.render("html", Verdict(Decision.HOLD, "the run did not finish"), [], CATALOGUE, RUN)
    assert f"<span>unknown <b>{len(CATALOGUE)}</b></span>" in page
    assert '<details class="group" open>' not in page
    assert '<details class="group">' in page


def test_reports_say_each_outcome_in_the_tool_s_own_word() -> None:
    """JUnit: a fail is a failure, an unknown an error, not applicable skipped; nothing unseen counts as passed."""
    tree = ET.fromstring(reports.render("junit", VERDICTS["rollback"], EVIDENCE, CATALOGUE, RUN))  # noqa: S314
    cases = {f"{c.get('classname')}.{c.get('name')}": [child.tag for child in c] for c in tree.iter("testcase")}
    assert cases["drill.idempotency.same-key-other-payload"] == ["failure"]
    assert cases["sql.spot.replay-runs-unique"] == ["error"]
    assert cases["drill.recovery.kill-worker"] == ["skipped"]
    assert cases["drill.proof.hmac-refused"] == []


def allure_results(folder: Path, verdict: Verdict, evidence: Sequence[Evidence]) -> dict[str, dict[str, JsonValue]]:
    """What `reports.write` leaves for Allure, by the full name of each result."""
    reports.write(folder, verdict, evidence, CATALOGUE, RUN, {}, print)
    files = (folder / "allure-results").glob("*-result.json")
    results = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    assert len({r["fullName"] for r in results}) == len(results)
    return {r["fullName"]: r for r in results}


def test_allure_has_every_check_of_the_catalogue_once(tmp_path: Path) -> None:
    """A check without evidence is broken, not absent; a second report replaces the first."""
    allure_results(tmp_path, VERDICTS["promote"], EVIDENCE)
    results = allure_results(tmp_path, VERDICTS["rollback"], EVIDENCE)
    assert {name: r["status"] for name, r in results.items()} == {
        "drill/idempotency/same-key-other-payload": "failed",
        "drill/proof/hmac-refused": "passed",
        "drill/recovery/kill-worker": "skipped",
        "load/outbox_lag_ms/p95": "passed",
        "sql/spot/audit-chain": "broken",
        "sql/spot/replay-runs-unique": "broken",
    }
    failed = results["drill/idempotency/same-key-other-payload"]
    assert failed["statusDetails"] == {"message": FAILED.message, "trace": FAILED.reproduce}
    assert isinstance(failed["attachments"], list)
    exempt = results["drill/recovery/kill-worker"]["statusDetails"]
    assert exempt == {"message": "may run on reference targets only"}
    (witness,) = failed["attachments"]
    assert isinstance(witness, dict)
    text = (tmp_path / "allure-results" / str(witness["source"])).read_text(encoding="utf-8")
    assert json.loads(text) == FAILED.witness
    assert len(list((tmp_path / "allure-results").iterdir())) == len(CATALOGUE) + 3


def test_allure_has_the_environment_and_categories(tmp_path: Path) -> None:
    """It shows release and target; unknown checks are no failures, and blocked ones are a group of their own."""
    odd = dataclasses.replace(VERDICTS["rollback"], release="r\\1 é\n=x: \U0001f600")
    allure_results(tmp_path, odd, EVIDENCE)
    text = (tmp_path / "allure-results" / "environment.properties").read_text(encoding="ascii")
    assert text.splitlines()[0].startswith("release=r\\\\1 \\u00e9")
    assert text.splitlines()[0].endswith("=x: \\ud83d\\ude00")
    assert "decision=rollback" in text.splitlines()
    assert text.count("\n") == len(text.splitlines()) == 5
    categories = json.loads((tmp_path / "allure-results" / "categories.json").read_text(encoding="utf-8"))
    assert {status for one in categories for status in one["matchedStatuses"]} == {"failed", "broken", "skipped"}


def test_allure_knows_a_check_again_in_the_next_run(tmp_path: Path) -> None:
    """A result's identity depends on the check alone; its times are those of the evidence."""
    at = "2026-01-02T12:00:00.250+00:00"
    one, other = (
        result_of(Row("load/x", "pass", severity="page", samples=n, started_at=at, duration_ms=n)) for n in (1, 2)
    )
    assert one.historyId == other.historyId
    assert one.uuid != other.uuid
    assert (one.start, other.stop) == (1767355200250, 1767355200252)
    assert all(p.excluded for p in one.parameters)
    assert result_of(Row("load/x", "unknown")).start is None


@pytest.mark.parametrize("effect", ["note", "waived"])
@pytest.mark.parametrize("outcome", ["fail", "unknown"])
def test_what_did_not_pass_and_decides_nothing_is_neither_red_nor_green(outcome: str, effect: str) -> None:
    """JUnit and Allure show a finding that is only noted as skipped, with its message."""
    row = Row("load/x", outcome, effect, "page", message="seen")
    (case,) = junit_cases([row])
    assert case.attrib == {"message": f"{outcome} ({effect}): seen"}
    assert case.tag == "skipped"
    result = result_of(row)
    assert (result.status, result.statusDetails.message) == ("skipped", case.get("message"))
    kinds = [c for c in CATEGORIES if "skipped" in c["matchedStatuses"]]
    first = next(c for c in kinds if re.fullmatch(str(c.get("messageRegex", ".*")), result.statusDetails.message))
    assert first["name"] == "Decides nothing"


@pytest.mark.parametrize(
    ("observed", "limit", "used"),
    [(0.09, 0.02, "450 %"), (0.9, 0.98, "500 %"), (3000.0, 2500.0, "120 %"), (1.0, 4.0, "175 %")],
)
def test_a_broken_limit_is_shown_as_far_as_it_was_broken(observed: float, limit: float, used: str) -> None:
    """The bar compares the value with its upper limit, or what is missing with what may be missing."""
    row = Row("load/x/rate", "fail", observed=observed, limit=limit)
    assert f"<td>{used}</td>" in charts.limits(ReportSource(VERDICTS["promote"], [row], RUN))


def junit_cases(rows: Sequence[Row]) -> list[ET.Element]:
    """What stands within the cases of these rows."""
    source = ReportSource(VERDICTS["promote"], rows, RUN)
    return [child for case in ET.fromstring(junit(source)).iter("testcase") for child in case]  # noqa: S314  -- our own text


@pytest.mark.parametrize("severity", list(Severity))
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_allure_takes_every_severity_and_outcome(severity: Severity, outcome: str) -> None:
    """Every severity and outcome has a word of Allure's."""
    result = result_of(Row("load/x", outcome, severity=severity.value))
    assert result.status
    assert [label.value for label in result.labels if label.name == "severity"]


def test_github_gets_the_summary_and_the_outputs(tmp_path: Path) -> None:
    """Both are appended to what the workflow already wrote."""
    summary, output = tmp_path / "summary", tmp_path / "output"
    summary.write_text("before\n", encoding="utf-8")
    environ = {"GITHUB_STEP_SUMMARY": str(summary), "GITHUB_OUTPUT": str(output)}
    reports.write(tmp_path, VERDICTS["hold"], EVIDENCE, CATALOGUE, RUN, environ, print)
    assert summary.read_text(encoding="utf-8").startswith("before\n## 🟡 hold\n")
    assert "decision=hold\n" in output.read_text(encoding="utf-8")
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize("broken", ["GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"])
@pytest.mark.parametrize("kind", ["a pipe", "a full disk", "a folder", "no folder"])
def test_what_github_does_not_take_is_a_warning(tmp_path: Path, broken: str, kind: str) -> None:
    """A container may have the variables without the files, which must not turn a step into an error."""
    pipe, full, missing = tmp_path / "pipe", Path("/dev/full"), tmp_path / "missing" / "file"
    os.mkfifo(pipe)
    place = {"a pipe": pipe, "a full disk": full, "a folder": tmp_path, "no folder": missing}[kind]
    fine = tmp_path / "fine"
    environ = {"GITHUB_STEP_SUMMARY": str(fine), "GITHUB_OUTPUT": str(fine), broken: str(place)}
    said: list[str] = []
    reports.write(tmp_path, VERDICTS["promote"], EVIDENCE, CATALOGUE, RUN, environ, said.append)
    assert [line.startswith(f"{broken} could not be written: ") for line in said] == [True]
    assert "promote" in fine.read_text(encoding="utf-8")


def test_the_page_counts_what_is_blocked_as_the_terminal_does() -> None:
    """A check that is blocked through another one counts for the cause of both."""
    chain = (UNKNOWN, BLOCKED, dataclasses.replace(BLOCKED, check="drill/x/y", blocked_by=BLOCKED.check))
    verdict = dataclasses.replace(VERDICTS["hold"], findings=chain)
    for text in (
        verdict_text(verdict, colour=False),
        *(reports.render(kind, verdict, EVIDENCE, CATALOGUE, RUN) for kind in ("html", "markdown", "slack")),
    ):
        assert "one cause, 2 checks behind it" in text.lower()


def test_unknowns_that_share_a_reason_alone_are_counted_and_none_leads() -> None:
    """A path that is missing is no matter of tokens, though a check of tokens is the first that met it."""
    ids = ("drill/tokens/expired", "drill/tokens/alg-none", "drill/outbox/order")
    why = "GET /dlq-replay/ID answered 404: the path is not there"
    found = tuple(Finding(one, "unknown", "page", Effect.HOLD, why) for one in ids)
    verdict = Verdict(Decision.HOLD, "why", counts=Counts(1, 0, 3), findings=found)
    seen, catalogue = [Evidence(one, Outcome.UNKNOWN, why) for one in ids], [spec(one) for one in ids]
    heads = "3 checks, like drill/tokens/expired"
    assert f"unknown {heads} for the same reason" in verdict_text(verdict, colour=False)
    for kind in ("html", "markdown", "slack"):
        text = reports.render(kind, verdict, seen, catalogue, {})
        assert heads in re.sub("<a [^>]*>", "", text), kind
        assert "Promise: " not in text.partition('<details class="group"')[0], kind
    led = (dataclasses.replace(found[0], symptom="s", outcome="fail"), *found[1:])
    assert "3 checks, like" not in verdict_text(dataclasses.replace(verdict, findings=led), colour=False)


def test_the_terminal_is_plain_without_colour() -> None:
    """No escape sequence where colour is off; one line a stage."""
    line = progress_line(Progress("drill", 10, 1, 2, 20, 3.25, done=True), colour=False)
    assert line.split() == ["✗", "drill", "10", "passed,", "1", "failed,", "2", "unknown", "3.2", "s"]
    # checks that were seen need not be those expected, in number: no fraction is made of the two
    assert "464 passed, 1 unknown " in progress_line(Progress("x", 464, 0, 1, 365, 1.0, done=True), colour=False)
    assert "\x1b" in progress_line(Progress("drill"), colour=True)
    assert "\x1b" not in verdict_text(VERDICTS["rollback"], colour=False)
    assert table([["a", None], ["bcd", 2]], ["x", "long"]) == "x    long\na\nbcd  2\n"


def test_a_stage_says_how_many_checks_each_group_has_and_what_they_took() -> None:
    """The slowest group comes first; a check seen twice is one check."""
    lines = [
        Evidence("drill/flags/a", Outcome.PASS, samples=1, duration_ms=500),
        Evidence("drill/audit/a", Outcome.PASS, samples=1, duration_ms=1500),
        Evidence("drill/audit/a", Outcome.PASS, samples=1, duration_ms=1500),
    ]
    assert groups_text(lines) == "group        checks  time\ndrill/audit  1       3.0 s\ndrill/flags  1       0.5 s\n"


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for file, text in rendered().items():
        (GOLDEN / file).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", sorted(VERDICTS))
def test_every_headline_says_within_which_contract_it_was_given(name: str) -> None:
    """In every medium, a promote of a part of the contract says that it is a part."""
    scope = contract().scope(["replay", "tenancy", "outbox"])
    verdict = dataclasses.replace(VERDICTS[name], contract=scope)
    said = "within replay, outbox, tenancy; not claimed: safety-rails, authentication, tokens, dry-run, idempotency, "
    terminal = verdict_text(verdict, colour=False).splitlines()
    assert any(line.startswith(f"{name.upper()}, {said}") for line in terminal)
    for kind in KINDS:
        assert said in reports.render(kind, verdict, EVIDENCE, CATALOGUE, RUN), kind
    assert f"contract={said}" in outputs(verdict)
    assert json.loads(verdict.dump())["contract"]["claims"] == list(scope.claims)
    whole = dataclasses.replace(VERDICTS[name], contract=contract().scope())
    assert whole.title == name
