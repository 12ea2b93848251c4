"""The verdict in plain sentences: what happened to whom, what was done, what to do now."""

import dataclasses
import json
from pathlib import Path

import pytest

from gates import reports
from gates.contract.scope import QUEUE, Scope
from gates.decision.rules import RolloutPlan
from gates.evidence import JsonValue
from gates.reports.sentences import OTHER_PATH, brief, recovery_lines
from gates.reports.terminal import verdict_text
from gates.text.inert import Terminal
from gates.verdict import SUPERSEDED, Action, Counts, Decision, Effect, Finding, Margin, StageResult, Verdict
from tests.cases import cases
from tests.gates.reports.report_pages import large
from tests.gates.reports.test_reports import CATALOGUE, EVIDENCE, KINDS, RUN, VERDICTS

CHECK = "drill/idempotency/same-key-other-payload"
PROMISES = {CHECK: "Another payload under a used key is refused. Otherwise it is lost."}
BROKEN = Finding(CHECK, "fail", "page", Effect.ROLLBACK, "observed 200; allowed: 422")
UNREACHED = Finding("preflight/target-reachable", "unknown", "page", Effect.HOLD, "nothing answers at BASE_URL")
OFF = Action("rollback", 10, 0, "done", "outbox.enabled was switched off in 0.01 s", flag="off")
STILL_ON = Action(
    "none", 10, 10, "failed", "outbox.enabled is still on: no connection", True, flag="on", by_hand="UPDATE"
)
TOO_LATE = dataclasses.replace(STILL_ON, result=SUPERSEDED, message="outbox.enabled is still on: too late", by_hand="")
CHANGED = Action("promote", 10, 77, "changed", "it was set to 50 %, and a moment later it was at 77 %", True)
NOTHING = Action()


def made(decision: Decision, action: Action = NOTHING, *findings: Finding, **more: object) -> Verdict:
    counts = Counts(5, sum(f.outcome == "fail" for f in findings), sum(f.outcome == "unknown" for f in findings))
    return Verdict(decision, "the reason", "r-1", "staging", counts=counts, findings=findings, action=action, **more)  # type: ignore[arg-type]


LET_PASS = dataclasses.replace(UNREACHED, effect=Effect.NOTE)
UNDECIDED_ONE = Finding("cohort/agent-success", "unknown", "warn", Effect.NOTE, "too few tenants")
PROMOTE, HOLD, ROLLBACK = Decision.PROMOTE, Decision.HOLD, Decision.ROLLBACK
AT_THE_END = Action("none", 100, 100, "nothing_to_do", "outbox.enabled is at 100 %, its last step")
UNSEEN = dataclasses.replace(UNREACHED, check="drill/x/y", message="Is it there?")
ALONE = dataclasses.replace(UNREACHED, check="preflight/alone", message="another run of the gate is examining it")
FUTURE = "the evidence is from the future: a clock jumped. Correct it, and run the gate again"
OVERRIDDEN = Action("none", 10, 10, "override", "1 tenant has it otherwise", holds=True)
TOLD = {
    "stepped": made(PROMOTE, Action("promote", 10, 50, "done")),
    "changed": made(HOLD, CHANGED),
    "not known": made(HOLD, dataclasses.replace(CHANGED, to_percent=None, result="unknown")),
    "last step": made(PROMOTE, AT_THE_END),
    "of a queue": made(PROMOTE, NOTHING, contract=Scope((QUEUE,))),
    "dry run": made(PROMOTE, Action("promote", 10, 50, "dry_run")),
    "much let pass": made(PROMOTE, NOTHING, dataclasses.replace(BROKEN, effect=Effect.WAIVED), LET_PASS, UNDECIDED_ONE),
    "one let pass": made(PROMOTE, NOTHING, dataclasses.replace(BROKEN, effect=Effect.NOTE)),
    "off": made(ROLLBACK, OFF, BROKEN),
    "off for two": made(ROLLBACK, OFF, BROKEN, dataclasses.replace(BROKEN, check="sql/ours/own")),
    "off, onto what is broken": made(ROLLBACK, OFF, BROKEN, dataclasses.replace(BROKEN, check=OTHER_PATH)),
    "still on": made(ROLLBACK, STILL_ON, BROKEN),
    "too late": made(ROLLBACK, TOO_LATE, BROKEN),
    "unreached, off": made(HOLD, Action("none", 0, 0, "nothing_to_do"), UNREACHED),
    "unreached": made(HOLD, Action("none", 10, 10, "nothing_to_do"), UNREACHED),
    "another run": made(HOLD, NOTHING, ALONE),
    "from the future": made(HOLD, NOTHING, dataclasses.replace(ALONE, message=FUTURE)),
    "stage beside a queue": dataclasses.replace(
        made(HOLD, stage=StageResult("sql", "passed")), contract=Scope((QUEUE,), queue="{}")
    ),
    "held": made(HOLD, NOTHING, dataclasses.replace(BROKEN, effect=Effect.HOLD)),
    "unseen": made(HOLD, Action("none"), UNSEEN, ends_when=("drill/x/y is observed", "another thing is so")),
    "overridden": made(HOLD, OVERRIDDEN),
    "stage": made(HOLD, stage=StageResult("drill", "passed")),
    "unfinished": Verdict(HOLD, "the run did not finish"),
}
SENTENCES = {
    name: dict(line.split(": ", 1) for line in text.replace("\n  ", " ").splitlines())
    for (name,), text in cases(Path(__file__).with_name("sentences.txt"))
}
"""Of each verdict: the one sentence, and parts of the three."""


@pytest.mark.parametrize("name", [name for name, said in SENTENCES.items() if "lead" in said])
def test_one_sentence_says_it_all(name: str) -> None:
    """What happened to whom, what was done, what to do now."""
    lead = brief(Terminal, TOLD[name], PROMISES, RolloutPlan()).lead
    assert lead == f"Release r-1 on staging {SENTENCES[name]['lead']}"


@pytest.mark.parametrize("name", [name for name, said in SENTENCES.items() if "now" in said])
def test_a_verdict_is_told_in_three_sentences(name: str) -> None:
    """What happened to whom, what was done, what to do now; true of every kind of verdict."""
    told, said = brief(Terminal, TOLD[name], PROMISES, RolloutPlan()), SENTENCES[name]
    assert said.get("happened", "") in told.happened
    assert not told.happened.endswith(("..", "?."))
    assert said["done"] in told.done
    assert said["now"] in told.now


def test_every_medium_tells_the_same_sentences() -> None:
    """A release manager reads the same in the terminal, the page, the pull request and the channel."""
    for verdict in VERDICTS.values():
        told = brief(Terminal, verdict, {s.id: f"{s.claim} {s.cost}" for s in CATALOGUE}, RolloutPlan())
        texts = [reports.render(kind, verdict, EVIDENCE, CATALOGUE, RUN) for kind in KINDS]
        for text in (*texts, verdict_text(verdict, colour=False)):
            for part in str(told.done).split("outbox.enabled"):
                assert part.strip() in text.replace("\N{NO-BREAK SPACE}", " ")


def test_a_rollback_says_nothing_beside_the_point() -> None:
    """It has no nearest limit beside a broken one, correct singulars, and no raw True or False."""
    recovery: dict[str, JsonValue] = {"on_somewhere": False, "proved": True, "held": 3}
    counted = dataclasses.replace(BROKEN, message="", observed=1, limit=0, unit="violations", samples=16)
    verdict = dataclasses.replace(
        made(Decision.ROLLBACK, dataclasses.replace(OFF, recovery=recovery), counted),
        margin=Margin("load/x", 1.0, 3.0, "ms", 0.67),
    )
    assert recovery_lines(recovery)[0] == ("rows of the flag", "off, all of them")
    for kind in KINDS:
        text = reports.render(kind, verdict, EVIDENCE, CATALOGUE, RUN)
        assert "nearest limit" not in text, kind
        assert "1 violations" not in text, kind
        assert "somewhere" not in text, kind
        assert "True" not in text, kind


def test_what_is_unknown_is_explained_beside_a_failure() -> None:
    """A rollback also names every cause of unknown checks, and what it blocks."""
    unknown = [dataclasses.replace(UNREACHED, check=f"sql/spot/x{n}", message=f"why {n % 3}") for n in range(30)]
    verdict = made(Decision.ROLLBACK, OFF, BROKEN, *unknown)
    assert [len(group) for group in verdict.beside("unknown")] == [10, 10, 10]
    for text in (
        verdict_text(verdict, colour=False),
        *(reports.render(k, verdict, [], (), RUN) for k in ("html", "markdown")),
    ):
        assert all(f"why {n}" in text for n in range(3))


@pytest.mark.parametrize("decision", [PROMOTE, HOLD, ROLLBACK])
def test_what_failed_and_decided_nothing_is_named(decision: Decision) -> None:
    """A failure that the policy lets pass is named after the causes, with its message."""
    kept = Finding("sql/lint/one-policy", "fail", "info", Effect.NOTE, "two permissive policies on one table")
    causes = {Decision.ROLLBACK: (BROKEN,), Decision.HOLD: (UNREACHED,)}.get(decision, ())
    verdict = made(decision, NOTHING, *causes, kept)
    for text in (
        verdict_text(verdict, colour=False),
        *(reports.render(k, verdict, [], (), RUN) for k in ("html", "markdown", "slack")),
    ):
        told = text[text.lower().index("also failed") :]
        assert kept.check in told
        assert kept.message in told.replace("<wbr>", "")
        assert not any(one.said in told.partition(kept.message)[0] for one in causes)


def test_ten_thousand_findings_fit_into_every_medium() -> None:
    """A step summary holds a megabyte, Slack blocks of 3000 characters and 50 of them; what is left is counted."""
    markdown = large(10_000, "markdown")
    assert len(markdown.encode()) < 100_000
    assert "… and " in markdown
    blocks = json.loads(large(10_000, "slack"))["blocks"]
    assert len(blocks) <= 50
    assert all(len(b["text"]["text"]) <= 3000 for b in blocks if "text" in b)
