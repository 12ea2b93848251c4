"""Areas that a policy does not claim do not apply and are named; claims never promote what was not seen."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gates.contract.contract import contract
from gates.contract.scope import OWN, QUEUE, SERVICE, Scope
from gates.decision.decide import decide
from gates.decision.floor import FLOOR, QUEUE_FLOOR, WITHIN, floor_of, on_floor
from gates.decision.policy_file import parse
from gates.decision.rules import Policy, PolicyRule
from gates.evidence import CheckSpec, Evidence, Outcome, TargetKind
from gates.verdict import Decision, Verdict
from tests.gates.decision.small_policy import NOW, RANK, saw, spec
from tests.gates.decision.test_floor import CATALOGUE, FEW

AREAS = contract().claimable
OF_A_QUEUE = tuple(spec(f"queue/{name}", area=QUEUE) for name in ("proof/effect-once", "lag"))
SPECS = (*FEW, *OF_A_QUEUE)
GREEN = [saw(s.id, observed=1.0, limit=2.0) for s in SPECS]


def policy(*claims: str, catalogue: tuple[CheckSpec, ...] = CATALOGUE) -> Policy:
    return Policy(catalogue, TargetKind.STAGING, scope=contract().scope(claims))


def without(*areas: str) -> tuple[str, ...]:
    return tuple(a for a in AREAS if a not in {QUEUE, *areas})


@pytest.mark.parametrize("area", [a for a in AREAS if a not in {QUEUE, *SERVICE}])
def test_what_is_not_claimed_does_not_apply_and_is_named(area: str) -> None:
    """Failures in an unclaimed area do not count, and the promote names what it leaves out."""
    lines = [saw(s.id, Outcome.FAIL if s.area == area and not on_floor(s.id) else Outcome.PASS) for s in CATALOGUE]
    verdict = decide(lines, policy(*without(area)), NOW)
    assert verdict.decision is Decision.PROMOTE, verdict.reason
    assert verdict.title.startswith("promote, within replay, ")
    assert verdict.title.endswith(f"; not claimed: {area}")
    reasons = {e.check: e.reason for e in verdict.not_applicable}
    assert {reasons.get(s.id) for s in CATALOGUE if s.area == area and not on_floor(s.id)} <= {
        f"the policy does not claim {area}",
        "runs with --deep",
        "may run on reference targets only",
        "needs --disruptive",
    }
    said = json.loads(verdict.dump())["contract"]
    assert (said["unclaimed"], said["preset"]) == ([area], "")
    assert area not in said["claims"]
    assert decide(lines, policy(*without()), NOW).decision is not Decision.PROMOTE


def test_what_the_floor_asks_of_an_unclaimed_area_is_told_so() -> None:
    """The floor requires the area all the same: the run holds, and the headline says so."""
    check = "drill/proof/dry-run-changes-nothing"
    lines = [saw(s.id) for s in CATALOGUE if s.id != check]
    verdict = decide(lines, policy(*without("dry-run")), NOW)
    assert verdict.decision is Decision.HOLD
    assert "the policy does not claim dry-run, but this check is on the floor, which no claim removes" in verdict.reason
    assert "on the floor" not in decide(lines, policy(*without()), NOW).reason


def test_the_whole_contract_adds_no_words() -> None:
    """If all but a queue is claimed, the headline is the decision alone."""
    file = parse("version: 1\n", "gate.yaml", Path(), NOW.date())
    verdict = decide(GREEN, file.policy(SPECS, TargetKind.STAGING, "", deep=False), NOW)
    assert (verdict.title, verdict.contract.claims, verdict.contract.unclaimed) == ("promote", without(), ())
    assert {e.check for e in verdict.not_applicable} >= {s.id for s in OF_A_QUEUE}


def test_limits_of_the_policys_own_are_told() -> None:
    """A limit that differs from the contract's is in the headline and the JSON; an equal one is not."""
    text = "version: 1\nnames: {limits: {calls: 30, batch: 50}}\n"
    made = parse(text, "gate.yaml", Path(), NOW.date()).policy(SPECS, TargetKind.STAGING, "", deep=False)
    verdict = decide(GREEN, made, NOW)
    assert verdict.title == "promote, with limits of the policy's own: calls 30 (contract: 3)"
    said = json.loads(verdict.dump())["contract"]
    assert said["limits"] == [{"name": "calls", "policy": 30, "contract": 3}]
    again = Policy.from_json(json.loads(json.dumps(made.to_json())))
    assert (again.scope, again.digest) == (made.scope, made.digest)
    assert "limits" not in json.loads(decide(GREEN, policy(*without()), NOW).dump())["contract"]


def test_a_check_of_the_users_own_applies_within_any_claims() -> None:
    """A user's check has no area, so its failure always counts."""
    own = spec("sql/spot/budget-of-ours")
    few = policy(*SERVICE, catalogue=(*CATALOGUE, own))
    green = [saw(s.id) for s in CATALOGUE]
    assert decide([*green, saw(own.id)], few, NOW).decision is Decision.PROMOTE
    assert decide([*green, saw(own.id, Outcome.FAIL)], few, NOW).decision is Decision.ROLLBACK


def test_a_check_that_needs_another_area_applies_where_both_are_claimed() -> None:
    """Otherwise it does not apply, and says which area is missing."""
    one = spec("drill/x/y", area="replay", also=("audit",))
    lines = [saw(s.id) for s in CATALOGUE] + [saw(one.id, Outcome.FAIL)]
    verdict = decide(lines, policy(*without("audit"), catalogue=(*CATALOGUE, one)), NOW)
    told = {e.check: e.reason for e in verdict.not_applicable}
    assert told[one.id] == "the policy does not claim audit, which this check needs, too"
    assert decide(lines, policy(*without(), catalogue=(*CATALOGUE, one)), NOW).decision is Decision.ROLLBACK


def test_the_claims_are_part_of_the_policy() -> None:
    """Other claims give another digest, and run.json restores the same policy."""
    one, other = policy(*without("audit")), policy(*without("budgets"))
    assert one.digest != other.digest
    assert one.proof_digest != other.proof_digest
    again = Policy.from_json(json.loads(json.dumps(one.to_json())))
    assert (again.scope, again.digest) == (one.scope, one.digest)


def test_a_queue_stands_on_a_floor_of_its_own() -> None:
    """A queue alone needs no HTTP service; a queue with a service needs both floors."""
    alone = policy(QUEUE, catalogue=SPECS)
    seen = [e for e in GREEN if e.check.startswith(("queue/", "preflight/", "sql/spot/", "alert/"))]
    verdict = decide(seen, alone, NOW)
    assert verdict.decision is Decision.PROMOTE, verdict.reason
    assert verdict.title == "promote, within queue"
    for check in ("queue/proof/effect-once", "preflight/database", "preflight/pipeline"):
        assert decide([e for e in seen if e.check != check], alone, NOW).decision is Decision.HOLD
    assert decide(seen, policy(QUEUE, *SERVICE, catalogue=SPECS), NOW).decision is Decision.HOLD
    assert decide(GREEN, policy(QUEUE, *SERVICE, catalogue=SPECS), NOW).decision is Decision.PROMOTE
    without_proof = tuple(s for s in SPECS if not s.id.startswith("queue/proof/"))
    assert decide(GREEN, policy(QUEUE, catalogue=without_proof), NOW).decision is Decision.HOLD


CLAIMS = st.one_of(
    st.sets(st.sampled_from(AREAS)).map(lambda more: contract().scope((*SERVICE, *more))),
    st.sets(st.sampled_from(AREAS), min_size=1).map(lambda some: contract().scope(tuple(some))),
    st.lists(st.sampled_from([*AREAS, OWN, "", "no such area"]), max_size=3).map(
        lambda odd: Scope(tuple(odd), tuple(a for a in AREAS if odd and a not in odd))
    ),
)
RULES = st.lists(
    st.sampled_from(
        [PolicyRule("*", required=False), PolicyRule("load/*", required=False), PolicyRule("*", below=9.0)]
    ),
    max_size=2,
).map(tuple)
LOST = st.sets(st.sampled_from([s.id for s in SPECS]), max_size=4)
WORSE = st.dictionaries(
    st.sampled_from([s.id for s in SPECS]), st.sampled_from([Outcome.UNKNOWN, Outcome.FAIL]), max_size=4
)


def seen_of(verdict: Verdict, lines: list[Evidence]) -> set[str]:
    """The applicable checks for which only passes were seen."""
    bad = {e.check for e in lines if e.outcome is not Outcome.PASS} | {e.check for e in verdict.not_applicable}
    return {e.check for e in lines} - bad


@settings(max_examples=150, deadline=None)
@given(CLAIMS, RULES, LOST, WORSE)
def test_under_no_claims_does_less_or_worse_evidence_give_a_better_verdict(
    scope: Scope, rules: tuple[PolicyRule, ...], lost: set[str], worse: dict[str, Outcome]
) -> None:
    """Whatever is claimed, removed evidence never promotes, and worse evidence never helps."""
    one = Policy(SPECS, TargetKind.STAGING, rules=rules, scope=scope)
    less = [e for e in GREEN if e.check not in lost]
    bad = [dataclasses.replace(e, outcome=worse.get(e.check, e.outcome)) for e in less]
    ranks = [RANK[decide(lines, one, NOW).decision] for lines in (GREEN, less, bad)]
    assert ranks == sorted(ranks)


@settings(max_examples=150, deadline=None)
@given(CLAIMS, RULES, LOST, st.sets(st.sampled_from(AREAS), max_size=3))
def test_a_promote_has_seen_the_floor_and_a_pass_in_every_claimed_area(
    scope: Scope, rules: tuple[PolicyRule, ...], lost: set[str], blind: set[str]
) -> None:
    """A promote needs every check of the floor and at least one pass in each claimed area."""
    one = Policy(SPECS, TargetKind.STAGING, rules=rules, scope=scope)
    areas = {s.id: s.area for s in SPECS}
    lines = [e for e in GREEN if e.check not in lost and areas[e.check] not in blind]
    verdict = decide(lines, one, NOW)
    if verdict.decision is not Decision.PROMOTE:
        return
    seen = seen_of(verdict, lines)
    assert {areas[check] for check in seen} >= set(scope.claims) - {OWN, ""}
    for pattern in floor_of(scope):
        stands = {s.id for s in SPECS if PolicyRule(pattern).matches(s.id)}
        assert stands, pattern
        assert stands <= seen, pattern


def test_only_a_queue_leaves_the_floor_of_a_service() -> None:
    """Under any other claims the whole floor of a service is required."""
    trail = set(WITHIN)
    assert floor_of(Scope()) == floor_of(Scope(("audit",))) == FLOOR
    for claim in (*SERVICE, OWN, "no such area"):
        assert floor_of(Scope((claim,))).keys() == FLOOR.keys() - trail
    assert floor_of(Scope((QUEUE,))) == QUEUE_FLOOR
    assert floor_of(Scope((QUEUE, "audit"))) == QUEUE_FLOOR
    assert set(floor_of(Scope((*SERVICE, QUEUE)))) == {*FLOOR, *QUEUE_FLOOR} - trail


def test_gate_yaml_says_claims_preset_and_what_was_let_go() -> None:
    """Claims are in the contract's order; a queue preset claims the queue; every report lists what was dropped."""
    dropped = "{area: audit, reason: moved, owner: ann, expires: 2026-02-01}"
    text = f"version: 1\ncontract: {{preset: supabase, claims: [tenancy, replay], dropped: [{dropped}]}}\n"
    file = parse(text, "gate.yaml", Path(), NOW.date())
    assert (file.scope.claims, file.scope.preset) == (("replay", "tenancy"), "supabase")
    assert "audit" in file.scope.unclaimed
    verdict = decide(GREEN, file.policy(SPECS, TargetKind.STAGING, "", deep=False), NOW)
    assert verdict.remarks[0] == "no longer claimed: audit (until 2026-02-01 by ann: moved)"
    queue = parse("version: 1\ncontract: {preset: pg-boss}\n", "gate.yaml", Path(), NOW.date())
    assert (queue.scope.claims, queue.scope.text) == ((QUEUE,), "within queue (pg-boss)")
