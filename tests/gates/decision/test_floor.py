"""The floor: no policy, from gate.yaml or made otherwise, can promote a release below it."""

import dataclasses
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gates import catalogue
from gates.decision.decide import decide, weigh
from gates.decision.floor import FLOOR, is_optional, on_floor, parts_of
from gates.decision.policy_file import parse
from gates.decision.rules import Policy, PolicyRule, Waiver
from gates.errors import ConfigError
from gates.evidence import Evidence, JsonValue, Outcome, Severity, TargetKind, Where
from gates.verdict import Decision, Effect
from tests.gates.decision.small_policy import AT, NOW, RANK, saw, spec

CATALOGUE = catalogue.load()
GREEN = [saw(s.id, observed=1.0, limit=2.0) for s in CATALOGUE]
TALKED_INTO = (
    {"required": False},
    {"decides": "note"},
    {"severity": "investigate"},
    {"severity": "investigate", "required": False, "below": 1e12},
    {"decides": "hold", "above": -1e12},
)


def policy(kind: TargetKind = TargetKind.STAGING, **more: Any) -> Policy:
    return Policy(CATALOGUE, kind, **more)


def read(text: str) -> Policy:
    file = parse(text, "gate.yaml", Path(), NOW.date())
    return file.policy(CATALOGUE, TargetKind.STAGING, "", deep=False)


def test_the_floor_stands_on_checks_that_exist_and_apply_everywhere() -> None:
    """Each pattern matches checks that run in production, without --deep and without a capability."""
    for pattern in FLOOR:
        found = [s for s in CATALOGUE if PolicyRule(pattern).matches(s.id)]
        assert found, pattern
        assert all(TargetKind.PRODUCTION.allows(s.where) and not s.deep for s in found), pattern
    assert decide(GREEN, policy(), NOW).decision is Decision.PROMOTE


@pytest.mark.parametrize("rule", TALKED_INTO, ids=str)
@pytest.mark.parametrize("pattern", ["*", "*/*", "preflight/*", "drill/proof/fourth-call-refused"])
def test_a_rule_below_the_floor_is_refused_where_it_stands(pattern: str, rule: dict[str, object]) -> None:
    """The error has file, line and column, the check of the floor and what to do."""
    body = "".join(f"    {name}: {json.dumps(value)}\n" for name, value in rule.items() if not isinstance(value, float))
    with pytest.raises(ConfigError, match=r"gate\.yaml:\d+:\d+: \w+: .* matches .*floor as it is.*narrower pattern"):
        read(f'version: 1\nchecks:\n  "{pattern}":\n{body}')


def test_a_rule_that_leaves_the_floor_as_it_is_counts() -> None:
    """Checks above the floor may be spared, any check may be made graver, and a promote names what was spared."""
    rules = 'checks:\n  "drill/http-surface/*": {required: false}\n  "preflight/*": {severity: page}\n'
    waiver = "{check: drill/tokens/expired, reason: r, owner: o, expires: 2026-01-02}"
    text = f"version: 1\n{rules}waivers: [{waiver}]\n"
    verdict = decide(GREEN, read(text), NOW)
    spared = [s.check for s in verdict.not_required if s.by == "gate.yaml"]
    assert verdict.decision is Decision.PROMOTE
    assert spared
    assert all(c.startswith("drill/http-surface/") for c in spared)
    assert verdict.reason.endswith(f"(not required: {len(spared)} checks by gate.yaml, 1 waived)")
    assert {"check": "drill/tokens/expired", "by": "waived"} in json.loads(verdict.dump())["not_required"]


@pytest.mark.parametrize("check", sorted({s.id for s in CATALOGUE if on_floor(s.id)}))
def test_no_waiver_and_no_rule_spares_a_check_of_the_floor(check: str) -> None:
    """Whatever the policy says, an unknown, absent or failed one prevents a promote."""
    rules = (PolicyRule("*", Severity.INVESTIGATE, Effect.NOTE, required=False),)
    waived = policy(rules=rules, waivers=(Waiver(check, "r", "o", NOW.date()),))
    for line in ([], [saw(check, Outcome.UNKNOWN)], [saw(check, Outcome.FAIL, severity="investigate")]):
        seen = [e for e in GREEN if e.check != check]
        assert decide([*seen, *line], waived, NOW).decision is not Decision.PROMOTE
    spec = next(s for s in CATALOGUE if s.id == check)
    failed = decide([*GREEN, saw(check, Outcome.FAIL)], waived, NOW)
    assert failed.decision is (Decision.ROLLBACK if spec.severity is Severity.PAGE else Decision.HOLD)


def test_a_falling_backlog_softens_no_check_of_the_floor() -> None:
    """A leak is harm while a backlog drains, too; a policy that says otherwise is refused."""
    for pattern in ("*", "sql/rls/*", "preflight/*"):
        with pytest.raises(ConfigError, match=r"gate\.yaml:2:14: .* matches .*floor as it is"):
            read(f"version: 1\nlag_checks: ['{pattern}']\n")
    falling: dict[str, JsonValue] = {"samples": [[n * 2.0, 80 - 10 * n] for n in range(8)]}
    backlog = dataclasses.replace(saw("watch/outbox-backlog"), details=falling, samples=8)
    lenient = policy(lag_checks=("*",))
    leak, lag = (saw(check, Outcome.FAIL) for check in ("sql/rls/other-tenants-hidden", "alert/outbox-lag"))
    assert decide([*GREEN, backlog, leak], lenient, NOW).decision is Decision.ROLLBACK
    assert decide([*GREEN, backlog, lag], lenient, NOW).decision is Decision.HOLD


@pytest.mark.parametrize(("watched", "decision"), [("queue", Decision.HOLD), ("outbox", Decision.ROLLBACK)])
def test_a_queues_lag_is_softened_by_the_queues_own_backlog(watched: str, decision: Decision) -> None:
    """Only the queue's own falling backlog turns its lag into a hold."""
    falling: dict[str, JsonValue] = {"samples": [[n * 1.0, 80 - 10 * n] for n in range(8)]}
    backlog = dataclasses.replace(saw(f"watch/{watched}-backlog"), details=falling, samples=8)
    lag = spec("queue/lag", area="queue")
    queue = dataclasses.replace(policy(), catalogue=(*CATALOGUE, lag))
    assert decide([*GREEN, backlog, saw(lag.id, Outcome.FAIL)], queue, NOW).decision is decision


def test_a_policy_without_the_checks_of_the_floor_holds() -> None:
    """A catalogue that lacks them, or exempts them here, proves nothing."""
    for pattern, stands_for in FLOOR.items():
        left = tuple(s for s in CATALOGUE if not PolicyRule(pattern).matches(s.id))
        verdict = decide(GREEN, dataclasses.replace(policy(), catalogue=left), NOW)
        assert verdict.decision is Decision.HOLD
        assert stands_for in verdict.reason
    away = tuple(dataclasses.replace(s, where=Where.REFERENCE) if on_floor(s.id) else s for s in CATALOGUE)
    assert decide(GREEN, dataclasses.replace(policy(), catalogue=away), NOW).decision is Decision.HOLD


PARTS = {part: s for s in CATALOGUE if not s.deep for part in parts_of(s)}


@pytest.mark.parametrize("part", sorted(PARTS))
def test_every_area_and_every_group_of_drills_needs_a_pass_that_was_seen(part: str) -> None:
    """If all checks of one are spared or waived, the run holds and names it."""
    own = {s.id for s in CATALOGUE if part in parts_of(s)}
    rules = tuple(PolicyRule(check, required=False) for check in own)
    verdict = decide([e for e in GREEN if e.check not in own], policy(rules=rules), NOW)
    assert verdict.decision is Decision.HOLD
    assert f"{part}/*" in {f.check for f in verdict.deciding} or any(on_floor(f.check) for f in verdict.deciding)


FEW = tuple(s for n, s in enumerate(CATALOGUE) if on_floor(s.id) or s in PARTS.values() or n % 20 == 0)
"""The floor, a check of every part, and a twentieth of the rest: a decision about them takes a fifth of the time."""
FEW_GREEN = [e for e in GREEN if e.check in {s.id for s in FEW}]
IDS = sorted(s.id for s in FEW)
PATTERNS = st.one_of(st.sampled_from(["*", "*/*", "drill/*", "preflight/*", "?*"]), st.sampled_from(IDS))
RULES = st.fixed_dictionaries(
    {},
    optional={
        "required": st.booleans(),
        "decides": st.sampled_from(["note", "hold", "rollback"]),
        "severity": st.sampled_from(["page", "warn", "investigate"]),
        "below": st.sampled_from([-1e12, 0, 1e12]),
        "above": st.sampled_from([-1e12, 0, 1e12]),
    },
)
TEXTS = st.fixed_dictionaries(
    {"version": st.just(1)},
    optional={
        "checks": st.dictionaries(PATTERNS, RULES, max_size=4),
        "waivers": st.lists(
            st.builds(
                lambda c: {"check": c, "reason": "r", "owner": "o", "expires": "2026-01-03"}, st.sampled_from(IDS)
            ),
            max_size=3,
        ),
        "lag_checks": st.lists(PATTERNS, max_size=2),
        "unwaivable": st.lists(PATTERNS, max_size=2),
        "evidence": st.just({"max_age_minutes": 1440}),
        "stages": st.just({"drill": {"timeout_s": 1}, "sql": {"timeout_s": 1}, "load": {"timeout_s": 1}}),
    },
)
DEAD = [saw(s.id, Outcome.UNKNOWN) for s in FEW]


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.sampled_from(["empty", "dead", "no floor", "floor alone"]), st.sampled_from(TargetKind))
def test_no_policy_text_promotes_a_dead_target(text: dict[str, Any], seen: str, kind: TargetKind) -> None:
    """Whatever gate.yaml says, it is refused or does not promote; nor does a policy made otherwise."""
    floor, rest = ([e for e in FEW_GREEN if on_floor(e.check) is below] for below in (True, False))
    evidence: list[Evidence] = {"empty": [], "dead": DEAD, "no floor": rest, "floor alone": floor}[seen]
    rules = [_rule(pattern, rule) for pattern, rule in text.get("checks", {}).items()]
    waivers = [Waiver(w["check"], "r", "o", dt.date.fromisoformat(w["expires"])) for w in text.get("waivers", ())]
    by_hand = Policy(FEW, kind, rules=tuple(rules), waivers=tuple(waivers), lag_checks=("*",))
    assert decide(evidence, by_hand, NOW).decision is not Decision.PROMOTE
    try:
        file = parse(json.dumps(text), "gate.yaml", Path(), NOW.date())
        read_policy = file.policy(FEW, kind, "", deep=False)
    except ConfigError:
        return
    assert decide(evidence, read_policy, NOW).decision is not Decision.PROMOTE


def _rule(pattern: str, values: dict[str, Any]) -> PolicyRule:
    severity = Severity(values["severity"]) if "severity" in values else None
    decides = Effect(values["decides"]) if "decides" in values else None
    return PolicyRule(pattern, severity, decides, values.get("required"), values.get("below"), values.get("above"))


LINES = st.lists(
    st.builds(saw, st.sampled_from(IDS), st.sampled_from(Outcome), started_at=st.sampled_from([AT, AT, ""])), max_size=8
)


@settings(max_examples=100, deadline=None)
@given(LINES, st.lists(st.builds(_rule, PATTERNS, RULES), max_size=3), st.booleans())
def test_the_floor_takes_promotes_away_and_changes_nothing_else(
    lines: list[Evidence], rules: list[PolicyRule], green: bool
) -> None:
    """It never improves a decision, and rollbacks stay, so properties of weigh hold for decide."""
    one = Policy(FEW, TargetKind.STAGING, rules=tuple(rules))
    evidence = [*(FEW_GREEN if green else []), *lines]
    with_floor, without = decide(evidence, one, NOW).decision, weigh(evidence, one, NOW).decision
    assert RANK[with_floor] >= RANK[without]
    assert (with_floor is Decision.ROLLBACK) is (without is Decision.ROLLBACK)


def test_cohorts_may_be_unknown_unless_the_policy_requires_them() -> None:
    """Unknown cohorts hold nothing, since nothing is known right after a step; a seen harm counts."""
    cohorts = [s.id for s in CATALOGUE if is_optional(s.id)]
    others = [e for e in GREEN if e.check not in cohorts]
    unknown = [saw(check, Outcome.UNKNOWN) for check in cohorts]
    for seen in (others, [*others, *unknown]):
        verdict = decide(seen, policy(), NOW)
        assert verdict.decision is Decision.PROMOTE
        assert f"{len(cohorts)} checks of cohorts, which saw too little" in verdict.reason
        assert {n.check for n in verdict.not_required} == set(cohorts)
    required = policy(rules=(PolicyRule("cohort/success", required=True),))
    assert decide([*others, *unknown], required, NOW).decision is Decision.HOLD
    harmed = [*others, *unknown[1:], saw("cohort/success", Outcome.FAIL)]
    assert decide(harmed, policy(), NOW).decision is Decision.ROLLBACK
    assert decide([*others, saw("cohort/share", Outcome.FAIL)], policy(), NOW).decision is Decision.HOLD
    assert decide(GREEN, required, NOW).decision is Decision.PROMOTE
