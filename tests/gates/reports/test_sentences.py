"""The verdict in plain sentences: what happened to whom, what was done, what to do now."""

import dataclasses
import json

import pytest

from gates import reports
from gates.decision.rules import RolloutPlan
from gates.evidence import JsonValue
from gates.reports.sentences import brief, recovery_lines
from gates.reports.terminal import verdict_text
from gates.text.inert import Terminal
from gates.verdict import Action, Counts, Decision, Effect, Finding, Margin, StageResult, Verdict
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

CHANGED = Action("promote", 10, 77, "changed", "it was set to 50 %, and a moment later it was at 77 %", True)
NOTHING = Action()


def made(decision: Decision, action: Action = NOTHING, *findings: Finding, **more: object) -> Verdict:
    counts = Counts(5, sum(f.outcome == "fail" for f in findings), sum(f.outcome == "unknown" for f in findings))
    return Verdict(decision, "the reason", "r-1", "staging", counts=counts, findings=findings, action=action, **more)  # type: ignore[arg-type]


LET_PASS = dataclasses.replace(UNREACHED, effect=Effect.NOTE)
UNDECIDED_ONE = Finding("cohort/agent-success", "unknown", "warn", Effect.NOTE, "too few tenants")
LESS = "kept its promises, except for 1 broken and 1 unseen that the policy lets pass"
TO_TENANTS = "broke one promise (idempotency keys) to the 10 % of tenants that had it"


@pytest.mark.parametrize(
    ("verdict", "lead"),
    [
        (
            made(Decision.PROMOTE, Action("promote", 10, 50, "done")),
            "kept its promises, and outbox.enabled is at 50 % now: let it bake, then run the gate again.",
        ),
        (
            made(Decision.HOLD, CHANGED),
            "passed its checks, and outbox.enabled is at 77 % now: see to the cause, then run the gate again.",
        ),
        (
            made(Decision.HOLD, dataclasses.replace(CHANGED, to_percent=None, result="unknown")),
            (
                "passed its checks, and where outbox.enabled is now is not known: see to the cause, then run the gate"
                " again."
            ),
        ),
        (
            made(Decision.PROMOTE, Action("none", 100, 100, "nothing_to_do")),
            "kept its promises, and outbox.enabled stays at 100 %: nothing is left to do.",
        ),
        (
            made(Decision.PROMOTE, Action("promote", 10, 50, "dry_run")),
            (
                "kept its promises, and outbox.enabled stays at 10 %: run the gate without --dry-run, or hand the"
                " verdict over."
            ),
        ),
        (
            made(Decision.PROMOTE, NOTHING, dataclasses.replace(BROKEN, effect=Effect.WAIVED), LET_PASS, UNDECIDED_ONE),
            f"{LESS}, and outbox.enabled stays as it is: nothing is left to do.",
        ),
        (
            made(Decision.ROLLBACK, OFF, BROKEN),
            (
                f"{TO_TENANTS}, and outbox.enabled is off now: mend it, deploy, switch the flag on again, and run the"
                " gate."
            ),
        ),
        (
            made(Decision.ROLLBACK, STILL_ON, BROKEN),
            f"{TO_TENANTS}, and outbox.enabled is still on: switch it off by hand at once.",
        ),
        (
            made(Decision.HOLD, Action("none", 0, 0, "nothing_to_do"), UNREACHED),
            (
                "could not be judged (nothing answers at BASE_URL), and outbox.enabled stays off: see to the cause,"
                " then run the gate again."
            ),
        ),
        (
            made(Decision.HOLD, NOTHING, dataclasses.replace(BROKEN, effect=Effect.HOLD)),
            (
                "broke one promise (idempotency keys), and outbox.enabled stays as it is: mend what failed, then run"
                " the gate again."
            ),
        ),
    ],
)
def test_one_sentence_says_it_all(verdict: Verdict, lead: str) -> None:
    """What happened to whom, what was done, what to do now."""
    assert brief(Terminal, verdict, PROMISES, RolloutPlan()).lead == f"Release r-1 on staging {lead}"


@pytest.mark.parametrize(
    ("verdict", "happened", "done", "now"),
    [
        (
            made(Decision.PROMOTE, Action("promote", 10, 50, "done")),
            "Release r-1 on staging kept its promises: all 5 required checks passed.",
            "The flag outbox.enabled went from 10 % to 50 %.",
            "Let it bake (60 minutes a step), then run the gate again for 100 %.",
        ),
        (made(Decision.HOLD, CHANGED), "", f"{CHANGED.message}.", "See to that, and run the gate again."),
        (
            made(Decision.PROMOTE, NOTHING, dataclasses.replace(BROKEN, effect=Effect.NOTE)),
            "kept its promises, except for 1 broken that the policy lets pass: all 5 required checks passed.",
            "No flag was changed.",
            "Nothing is left to do.",
        ),
        (
            made(
                Decision.PROMOTE, Action("none", 100, 100, "nothing_to_do", "outbox.enabled is at 100 %, its last step")
            ),
            "kept its promises",
            "No flag was changed: outbox.enabled is at 100 %, its last step.",
            "Nothing is left to do: that is the last step.",
        ),
        (
            made(Decision.PROMOTE, Action("promote", 10, 50, "dry_run")),
            "kept its promises",
            "Nothing, in a dry run. The flag outbox.enabled would go from 10 % to 50 %.",
            "gate promote --from DIR",
        ),
        (
            made(Decision.ROLLBACK, OFF, BROKEN),
            f"Release r-1 on staging broke a promise: {PROMISES[CHECK]}",
            "The flag outbox.enabled went from 10 % to off.",
            "switch the flag on again (`gate flags enable outbox.enabled --at 10 --reason WHY`), and run the gate.",
        ),
        (
            made(Decision.ROLLBACK, OFF, BROKEN, dataclasses.replace(BROKEN, check="sql/ours/own")),
            "One other cause is listed below.",
            "went from 10 % to off",
            "Take the release back or deploy the repair",
        ),
        (
            made(Decision.ROLLBACK, STILL_ON, BROKEN),
            "broke a promise",
            "The rollback was not carried out: outbox.enabled is still on: no connection.",
            "Run the SQL below by hand at once",
        ),
        (
            made(Decision.HOLD, Action("none", 10, 10, "nothing_to_do"), UNREACHED),
            "r-1 on staging is safe: 1 of 6 checks saw nothing to judge by. The cause: nothing answers at BASE_URL.",
            "No flag was changed: outbox.enabled stays at 10 %.",
            "See that the service runs",
        ),
        (
            made(
                Decision.HOLD,
                Action("none"),
                dataclasses.replace(UNREACHED, check="drill/x/y", message="Is it there?"),
                ends_when=("drill/x/y is observed", "another thing is so"),
            ),
            "The cause: Is it there?",
            "No flag was changed.",
            "The hold ends when drill/x/y is observed and 1 more conditions are met.",
        ),
        (
            made(Decision.HOLD, Action("none", 10, 10, "override", "1 tenant(s) have it otherwise", holds=True)),
            "passed its checks, and its flag could not be stepped: 1 tenant(s) have it otherwise.",
            "No flag was changed: 1 tenant(s) have it otherwise.",
            "See to that, and run the gate again.",
        ),
        (
            made(Decision.HOLD, stage=StageResult("drill", "passed")),
            "kept its promises",
            "A stage alone decides nothing, and changes no flag.",
            "Nothing is left to do.",
        ),
        (
            Verdict(Decision.HOLD, "the run did not finish"),
            "the release is safe: the run did not finish.",
            "No flag",
            "again",
        ),
    ],
)
def test_a_verdict_is_told_in_three_sentences(verdict: Verdict, happened: str, done: str, now: str) -> None:
    """What happened to whom, what was done, what to do now; true of every kind of verdict."""
    told = brief(Terminal, verdict, PROMISES, RolloutPlan())
    assert happened in told.happened
    assert not told.happened.endswith(("..", "?."))
    assert done in told.done
    assert now in told.now


def test_every_medium_tells_the_same_sentences() -> None:
    """A release manager reads the same in the terminal, the page, the pull request and the channel."""
    for verdict in VERDICTS.values():
        told = brief(Terminal, verdict, {s.id: f"{s.claim} {s.cost}" for s in CATALOGUE}, RolloutPlan())
        texts = [reports.render(kind, verdict, EVIDENCE, CATALOGUE, RUN) for kind in KINDS]
        for text in (*texts, verdict_text(verdict, colour=False)):
            for part in str(told.done).split("outbox.enabled"):
                assert part.strip() in text.replace("\N{NO-BREAK SPACE}", " ")


def test_a_rollback_says_nothing_beside_the_point() -> None:
    """No nearest limit beside a broken one, one violation in the singular, and no state as True or False."""
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
    """A rollback does not hide what nobody saw: every cause is named, with what stands behind it."""
    unknown = [dataclasses.replace(UNREACHED, check=f"sql/spot/x{n}", message=f"why {n % 3}") for n in range(30)]
    verdict = made(Decision.ROLLBACK, OFF, BROKEN, *unknown)
    assert [len(group) for group in verdict.beside("unknown")] == [10, 10, 10]
    for text in (
        verdict_text(verdict, colour=False),
        *(reports.render(k, verdict, [], (), RUN) for k in ("html", "markdown")),
    ):
        assert all(f"why {n}" in text for n in range(3))


@pytest.mark.parametrize("decision", [Decision.PROMOTE, Decision.HOLD, Decision.ROLLBACK])
def test_what_failed_and_decided_nothing_is_named(decision: Decision) -> None:
    """The policy lets it pass, or worse decided: its name and what it said stand after the causes all the same."""
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
