"""weigh(): every combination of outcomes, and properties over generated evidence."""

import datetime as dt
import itertools
import math
from pathlib import Path

import pytest

from gates.contract.scope import QUEUE, Scope
from gates.decision import policy_file
from gates.decision.decide import BACKLOG, decide, own_warnings, weigh
from gates.decision.margin import LOAD, wider
from gates.decision.policy_file import Settings
from gates.decision.rules import Policy, PolicyRule, Waiver
from gates.evidence import Evidence, JsonValue, Outcome, Severity, TargetKind, Where
from gates.verdict import Action, Decision, Effect, Finding, Verdict, blocked_by_cause, settle
from tests.gates.decision.small_policy import LAG, NOW, RANK, A, B, C, policy, saw, spec

EXPECTED_BY_STATE = {("a", "fail"): Decision.ROLLBACK, ("b", "fail"): Decision.HOLD, ("c", "fail"): Decision.PROMOTE}


@pytest.mark.parametrize("states", list(itertools.product(("pass", "fail", "unknown", "missing"), repeat=3)))
def test_every_combination_of_three_severities_decides_as_the_rules_say(states: tuple[str, ...]) -> None:
    """A failure of severity page rolls back, a warning or an unknown holds, the rest promotes."""
    evidence = [saw(c, Outcome(s)) for c, s in zip("abc", states, strict=True) if s != "missing"]
    expected = Decision.PROMOTE
    for check, state in zip("abc", states, strict=True):
        one = EXPECTED_BY_STATE.get((check, state), Decision.PROMOTE if state == "pass" else Decision.HOLD)
        expected = max(expected, one, key=RANK.__getitem__)
    verdict = weigh(evidence, policy(A, B, C), NOW)
    assert verdict.decision is expected
    assert verdict.counts.passed == states.count("pass")
    assert verdict.counts.failed == states.count("fail")
    assert verdict.counts.unknown == states.count("unknown") + states.count("missing")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (saw("a", samples=0), "nothing was observed"),
        (saw("a", observed=math.nan), "nothing was observed"),
        (saw("a", limit=math.inf), "nothing was observed"),
        (saw("a", started_at=""), "when it was seen"),
        (saw("a", started_at="yesterday"), "when it was seen"),
        (saw("a", started_at="2026-01-02T11:59:00"), "when it was seen"),
        (saw("a", started_at=(NOW - dt.timedelta(minutes=61)).isoformat()), "minutes old"),
        (saw("a", started_at=(NOW + dt.timedelta(minutes=6)).isoformat()), "from the future"),
        (saw("a", round="before"), "not looked at again"),
    ],
)
def test_a_pass_that_cannot_be_trusted_is_unknown(line: Evidence, why: str) -> None:
    """A pass without samples, number or valid time, or only from before the load, does not count."""
    verdict = weigh([line], policy(A), NOW)
    assert verdict.decision is Decision.HOLD
    assert why in verdict.findings[0].message


def test_evidence_of_another_release_neither_promotes_nor_rolls_back() -> None:
    """Evidence of another release does not count."""
    for outcome in Outcome:
        verdict = weigh([saw("a", outcome, release="r1")], policy(A, release="r2"), NOW)
        assert verdict.decision is Decision.HOLD
        assert "release r1" in verdict.reason


def test_nothing_required_holds() -> None:
    """An empty catalogue, or one without an applicable check, holds."""
    assert weigh([], policy(), NOW).decision is Decision.HOLD
    staging_only = policy(spec("a", where=Where.STAGING))
    assert weigh([saw("a")], staging_only, NOW).decision is Decision.HOLD


def test_two_different_lines_of_one_check_count_as_the_worse() -> None:
    """The worst line counts, in any order."""
    for one, other in itertools.permutations(Outcome, 2):
        verdict = weigh([saw("a", one), saw("a", other)], policy(A), NOW)
        worst = Decision.ROLLBACK if Outcome.FAIL in {one, other} else Decision.HOLD
        assert verdict.decision is worst


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("unknown", "pass", Decision.PROMOTE),
        ("pass", "unknown", Decision.HOLD),
        ("fail", "pass", Decision.ROLLBACK),
        ("pass", "fail", Decision.ROLLBACK),
        ("pass", "pass", Decision.PROMOTE),
        ("pass", None, Decision.HOLD),
    ],
)
def test_what_was_unknown_before_load_may_be_seen_after_it(before: str, after: str | None, expected: Decision) -> None:
    """The load may supply the samples that were missing; a failure before it stands."""
    lines = [saw("a", Outcome(before), round="before")] + ([saw("a", Outcome(after))] if after else [])
    assert weigh(lines, policy(A), NOW).decision is expected


def test_a_check_that_needs_what_the_target_lacks_is_not_applicable() -> None:
    """The preflight must have seen that it is lacking; otherwise the check is required."""
    agent = policy(A, spec("drill/agent", needs=("drill-agent",)))
    capability = "preflight/capability/drill-agent"
    verdict = weigh([saw("a"), saw(capability, observed=False)], agent, NOW)
    assert verdict.decision is Decision.PROMOTE
    assert [n.check for n in verdict.not_applicable] == ["drill/agent"]
    assert verdict.counts.not_applicable == 1
    for told in (
        [],
        [saw(capability, observed=True)],
        [saw(capability, observed=False), saw(capability, observed=True)],
    ):
        assert weigh([saw("a"), *told], agent, NOW).decision is Decision.HOLD
    unasked = saw(capability, Outcome.UNKNOWN, observed=False)
    assert weigh([saw("a"), unasked], agent, NOW).decision is Decision.HOLD


def test_the_target_kind_decides_what_applies() -> None:
    """Production requires no staging check; a reference requires all."""
    checks = (
        *(spec("a"), spec("b", where=Where.STAGING), spec("c", where=Where.REFERENCE), spec("d", deep=True)),
        *(spec("e", where=Where.DISRUPTIVE),),
    )
    for kind, applicable in ((TargetKind.PRODUCTION, 1), (TargetKind.STAGING, 2), (TargetKind.REFERENCE, 4)):
        assert weigh([], policy(*checks, target=kind), NOW).counts.unknown == applicable
    assert weigh([], policy(*checks, target=TargetKind.REFERENCE, deep=True), NOW).counts.unknown == 5


def test_what_disturbs_everybody_is_required_on_staging_only_where_a_person_allowed_it() -> None:
    """The permission is part of the policy's digest; without it, such evidence adds no required check."""
    checks = (spec("a"), spec("b", where=Where.DISRUPTIVE))
    unasked = policy(*checks, target=TargetKind.STAGING)
    asked = policy(*checks, target=TargetKind.STAGING, disruptive=True)
    seen = [saw("a"), saw("b")]
    for lines in (seen, seen[:1]):
        verdict = weigh(lines, unasked, NOW)
        assert [(e.check, e.reason) for e in verdict.not_applicable] == [("b", "needs --disruptive")]
        assert verdict.counts.passed == 1
    assert weigh(seen[:1], asked, NOW).decision is Decision.HOLD
    assert weigh(seen, asked, NOW).decision is Decision.PROMOTE
    assert asked.digest != unasked.digest
    assert asked.proof_digest == unasked.proof_digest
    assert Policy.from_json(asked.to_json()).disruptive
    production = policy(*checks, target=TargetKind.PRODUCTION, disruptive=True)
    assert weigh(seen, production, NOW).not_applicable[0].reason == "may run on staging targets only, with --disruptive"


def test_a_rule_of_the_policy_changes_severity_effect_requirement_and_limit() -> None:
    """Later rules win; a number beyond the policy's limit fails, and a missing number is unknown."""
    fail = [saw("a", Outcome.FAIL)]
    assert weigh(fail, policy(A, rules=(PolicyRule("a", severity=Severity.WARN),)), NOW).decision is Decision.HOLD
    assert weigh(fail, policy(A, rules=(PolicyRule("*", decides=Effect.HOLD),)), NOW).decision is Decision.HOLD
    both = (PolicyRule("*", decides=Effect.HOLD), PolicyRule("a", decides=Effect.ROLLBACK))
    assert weigh(fail, policy(A, rules=both), NOW).decision is Decision.ROLLBACK
    spare = policy(A, B, rules=(PolicyRule("b", required=False),))
    assert weigh([saw("a")], spare, NOW).decision is Decision.PROMOTE
    limit = policy(A, rules=(PolicyRule("a", below=2000.0),))
    assert weigh([saw("a", observed=1999.9)], limit, NOW).decision is Decision.PROMOTE
    assert weigh([saw("a", observed=2000)], limit, NOW).decision is Decision.ROLLBACK
    for odd in (None, True, "12"):
        assert weigh([saw("a", observed=odd)], limit, NOW).decision is Decision.HOLD


def test_evidence_may_say_which_of_several_limits_was_broken() -> None:
    """An alert over its warning limit holds, over its paging limit it rolls back; the policy can change that."""
    over = [saw("a", Outcome.FAIL, severity="warn")]
    assert weigh(over, policy(A), NOW).decision is Decision.HOLD
    assert weigh(over, policy(A, rules=(PolicyRule("a", severity=Severity.PAGE),)), NOW).decision is Decision.ROLLBACK


def test_a_waiver_counts_until_its_day_and_never_for_what_cannot_be_waived() -> None:
    """A waived finding is only noted, and does not count as a pass."""
    today = NOW.date()
    for day, expected in ((today, Decision.PROMOTE), (today - dt.timedelta(days=1), Decision.ROLLBACK)):
        waived = policy(A, B, waivers=(Waiver("a", "known", "ann", day),))
        assert weigh([saw("a", Outcome.FAIL), saw("b")], waived, NOW).decision is expected
    fixed = policy(spec("preflight/release"), B, waivers=(Waiver("preflight/release", "x", "ann", today),))
    assert weigh([saw("preflight/release", Outcome.FAIL), saw("b")], fixed, NOW).decision is Decision.ROLLBACK


def test_the_reason_of_a_hold_names_every_variable_that_is_missing() -> None:
    """It names them if they block most checks, and otherwise does not."""
    unset: list[JsonValue] = ["REPLAY_JWT_SECRET", "DATABASE_URL"]
    message = "REPLAY_JWT_SECRET, DATABASE_URL not set: see it"
    missing = saw("preflight/variables", Outcome.UNKNOWN, message=message, details={"not_set": unset})
    names = [f"sql/x{i}" for i in range(3)]
    specs = [spec("preflight/variables", Severity.WARN), *(spec(n) for n in names)]
    want = [saw(n, Outcome.UNKNOWN, message="DATABASE_URL is not set: this check needs SQL") for n in names]
    verdict = weigh([missing, *want], policy(*specs), NOW)
    assert verdict.reason == "4 checks are unknown: REPLAY_JWT_SECRET, DATABASE_URL not set: see it"
    slow = [saw(n, Outcome.UNKNOWN, message="it ran out of time") for n in names]
    assert "most of them (3) because: it ran out of time" in weigh([missing, *slow], policy(*specs), NOW).reason
    mixed = [saw(n, Outcome.UNKNOWN, message=f"{n} was late") for n in names]
    assert "3 checks are unknown; the first is sql/x0: " in weigh(mixed, policy(*specs[1:]), NOW).reason


def test_a_missing_constraint_is_the_cause_and_not_the_drill_that_it_broke() -> None:
    """Of equally grave failures, the SQL check that names the object is cited."""
    spots = ("sql/spot/idempotency-constraints", "sql/spot/replay-runs-unique")
    names = ("drill/x/y", "alert/z", "sql/manifest/y", *spots)
    for order in itertools.permutations(names):
        verdict = weigh([saw(n, Outcome.FAIL, message="m") for n in order], policy(*map(spec, names)), NOW)
        assert verdict.reason.startswith("sql/spot/replay-runs-unique failed")


def test_the_reason_cites_the_cause_and_not_what_it_blocks() -> None:
    """Blocked findings come after their cause."""
    lines = [
        saw("a", Outcome.UNKNOWN, message="blocked by z", blocked_by="z"),
        saw("z", Outcome.UNKNOWN, message="the target gave no answer"),
    ]
    verdict = weigh(lines, policy(A, spec("z")), NOW)
    assert verdict.reason == "z is unknown: the target gave no answer"
    assert [f.check for f in verdict.deciding] == ["z"]
    assert verdict.ends_when == ("z passes",)


def test_a_failure_of_an_unlisted_check_holds() -> None:
    """A failure that no rule weighs is not ignored, and does not roll back."""
    verdict = weigh([saw("a"), saw("x", Outcome.FAIL, severity="page")], policy(A), NOW)
    assert verdict.decision is Decision.HOLD
    assert weigh([saw("a"), saw("x"), saw("y", Outcome.UNKNOWN)], policy(A), NOW).decision is Decision.PROMOTE


@pytest.mark.parametrize(
    ("backlog", "expected"),
    [
        ([[0, 900], [5, 700], [10, 500], [15, 300]], Decision.HOLD),
        ([[0, 900], [5, 700], [10, 720], [15, 300]], Decision.ROLLBACK),
        ([[0, 100], [5, 200], [10, 300], [15, 400]], Decision.ROLLBACK),
        ([[0, 900], [5, 700], [10, 500]], Decision.ROLLBACK),
        ([[0, 900], [5, None], [10, 500], [15, "1"]], Decision.ROLLBACK),
        ([], Decision.ROLLBACK),
    ],
)
def test_a_lag_with_a_falling_backlog_holds(backlog: list[object], expected: Decision) -> None:
    """A mean lag over its limit rolls back, unless the backlog fell during the whole observation."""
    lines = [saw("load/outbox_lag_ms/avg", Outcome.FAIL, observed=2400, limit=2000)]
    lines += [saw(BACKLOG, details={"samples": backlog})] if backlog else []
    verdict = weigh(lines, policy(LAG), NOW)
    assert verdict.decision is expected
    if expected is Decision.HOLD:
        assert "gone in about 8 s" in verdict.ends_when[0]
    other = weigh([saw("a", Outcome.FAIL), *lines], policy(LAG, A), NOW)
    assert other.decision is Decision.ROLLBACK


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (saw("alert/outbox-lag", Outcome.FAIL, severity="warn", details={"draining": True}), Decision.HOLD),
        (saw("alert/outbox-lag"), Decision.HOLD),
        (saw("alert/outbox-lag", Outcome.FAIL, severity="page"), Decision.ROLLBACK),
        (saw("alert/outbox-lag", Outcome.UNKNOWN), Decision.ROLLBACK),
    ],
)
def test_a_lag_of_before_the_run_holds_if_the_backlog_is_seen_gone(after: Evidence, expected: Decision) -> None:
    """A large backlog that a healthy release works off during the run does not roll it back."""
    before = saw("alert/outbox-lag", Outcome.FAIL, severity="page", round="before")
    assert weigh([before, after], policy(spec("alert/outbox-lag")), NOW).decision is expected


def test_the_margin_is_the_nearest_limit_in_relative_terms() -> None:
    """Shares close to one are measured by what may be missing."""
    checks = [spec("load/lag/p95"), spec("load/agents/rate"), spec("drill/x")]
    lines = [
        saw("load/lag/p95", observed=4100, limit=5000, unit="ms"),
        saw("load/agents/rate", observed=0.995, limit=0.98),
        saw("drill/x", observed=3, limit=3),
    ]
    margin = weigh(lines, policy(*checks), NOW).margin
    assert margin is not None
    assert margin.sentence == "nearest limit: load/lag/p95 4100 of 5000 ms (18 % left)"


def test_what_a_stage_came_to_is_said_once() -> None:
    """The title has the result; the reason says why, and that a stage is not the gate."""
    one = Policy((spec("sql/a"), B), release="r1").of_stage("sql")
    passed = decide([saw("sql/a", release="r1")], one, NOW)
    assert (passed.title, passed.reason) == (
        "sql stage passed",
        "all 1 required checks passed; a stage alone is no gate",
    )


@pytest.mark.parametrize(("stage", "told"), [("sql", True), ("alerts", False)])
def test_a_stage_without_the_checks_of_a_queue_says_where_they_are(stage: str, *, told: bool) -> None:
    """Otherwise its pass would look like one of the queue."""
    checks = (spec("sql/a"), spec("queue/lag", area=QUEUE))
    one = Policy(checks, scope=Scope((QUEUE,), queue="{}")).of_stage(stage)
    assert ("`gate alerts`" in decide([saw("sql/a"), saw("queue/lag")], one, NOW).reason) is told


def test_what_decided_less_is_told_after_what_was_seen() -> None:
    """A waived finding without a message shows its numbers."""
    waived = policy(A, B, waivers=(Waiver("a", "known", "ann", NOW.date()),))
    (found,) = weigh([saw("a", Outcome.FAIL, observed=7, limit=5, unit="ms"), saw("b")], waived, NOW).findings
    assert found.message == f"observed 7 ms, allowed 5 ms; waived until {NOW.date()} by ann: known"


def test_every_blocked_check_counts_for_its_first_cause() -> None:
    """Chains are followed to the first cause, and circles end."""
    blocks = {"a": "", "b": "a", "c": "b", "d": "c", "x": "y", "y": "x"}
    found = [Finding(check, "unknown", "page", Effect.HOLD, blocked_by=by) for check, by in blocks.items()]
    counts = blocked_by_cause(found)
    assert (counts["a"], counts.total()) == (3, 5)


def test_a_promotion_that_cannot_be_carried_out_is_a_hold() -> None:
    """A failed step makes the verdict a hold; a rollback stays one whatever its outcome."""
    promote = Verdict(Decision.PROMOTE, "all passed")
    held = settle(promote, Action("none", 10, 10, "busy", "another gate is acting on the flag", holds=True), "s", "f")
    assert held.decision is Decision.HOLD
    assert "another gate" in held.reason
    stays = settle(Verdict(Decision.ROLLBACK, "harm"), Action("none", result="busy", holds=True), "s", "f")
    assert stays.decision is Decision.ROLLBACK


def test_what_a_dry_run_would_have_done_is_told_by_its_own_decision_alone() -> None:
    """If changed evidence decides otherwise, the verdict does not repeat the dry run's action."""
    would = Action("rollback", 50, 0, "dry_run", "outbox.enabled would be switched off")
    assert settle(Verdict(Decision.ROLLBACK, "harm"), would, "s", "f").action == would
    held = settle(Verdict(Decision.HOLD, "it was cut"), would, "s", "f")
    assert (held.reason, held.action.kind) == ("it was cut", "none")


@pytest.mark.parametrize("kind", list(TargetKind))
@pytest.mark.parametrize("excess", ["", "is a superuser", "may become a superuser through ops"])
def test_a_login_that_may_do_more_than_a_gate_needs_is_named_in_every_verdict(kind: TargetKind, excess: str) -> None:
    """Outside the reference, a superuser login is a remark in every verdict."""
    line = saw("preflight/database", details={"login": {"name": "postgres", "excess": excess}})
    for evidence in ([line], [line, saw("a")], [line, saw("a", Outcome.FAIL)]):
        verdict = decide(evidence, policy(A, target=kind), NOW)
        named = f"the gate's login postgres {excess}: " in verdict.login
        assert named is (bool(excess) and kind is not TargetKind.REFERENCE)
        assert (verdict.login in verdict.remarks) is named
        assert verdict.to_json()["login"] == verdict.login


@pytest.mark.parametrize("kind", list(TargetKind))
@pytest.mark.parametrize("what", ["unverified", "nobody"])
def test_what_the_database_says_besides_is_named_in_every_verdict(what: str, kind: TargetKind) -> None:
    """An unverified server or an unknown TEST_COMPANY_ID is a remark, and decides nothing."""
    details: dict[str, JsonValue] = {"login": {"name": "g", "excess": ""}, what: "to be said"}
    told, untold = saw("preflight/database", details=details), saw("preflight/database")
    verdict, without = (decide([one, saw("a")], policy(A, target=kind), NOW) for one in (told, untold))
    assert verdict.decision is without.decision
    assert ("to be said" in verdict.remarks) is (kind is not TargetKind.REFERENCE)


def test_a_login_that_cannot_be_read_is_no_crash() -> None:
    """Malformed details give neither a warning nor an error."""
    logins: list[object] = [None, "postgres", [], {"name": 3}, {"excess": None}]
    for login in logins:
        assert own_warnings([saw("preflight/database", details={"login": login})], policy(A)) == ""


def test_margins_wider_than_the_defaults_are_said_in_the_reason_of_a_promote() -> None:
    """A promote names looser limits, so that nobody takes them for the defaults; tighter ones are not named."""

    def made(text: str) -> Policy:
        file = policy_file.parse(f"version: 1\n{text}", "gate.yaml", Path(), NOW.date())
        return file.policy([A], TargetKind.STAGING, "", deep=False)

    cohorts = "rollout: {cohorts: {margin_points: 50, most_events: 2000, fewest_tenants: 5}}"
    wide = made(f"{cohorts}\nstages: {{load: {{failed_percent: 99, slower_percent: 5}}}}\n")
    said = "rollout.cohorts.margin_points 50, rollout.cohorts.most_events 2000, stages.load.failed_percent 99"
    assert f"(wider margins: {said})" in weigh([saw("a")], wide, NOW).reason
    assert Policy.from_json(wide.to_json()).digest == wide.digest
    usual, narrower = made(""), made("stages: {load: {failed_percent: 1}}\n")
    assert "settings" not in usual.to_json(), "a proof of the defaults is a proof still"
    assert (narrower.digest == usual.digest, wider(narrower), wider(usual)) == (False, "", "")
    assert {f"stages.load.{n}": getattr(Settings(), f"load_{n}") for n in ("slower_percent", "failed_percent")} == LOAD
