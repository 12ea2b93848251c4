"""Properties of the decision over any evidence and policy."""

import dataclasses
import json
import math

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gates.decision.decide import weigh
from gates.decision.rules import Policy, PolicyRule, Waiver
from gates.evidence import Evidence, Outcome
from gates.evidence_file import chained, read_bytes
from gates.verdict import Decision, Effect
from tests.gates.decision.small_policy import AT, LAG, NOW, RANK, A, B, C, policy, saw, spec

CHECKS = ("a", "b", "c", "preflight/d", "load/outbox_lag_ms/avg", "unlisted")

WORSE = {Outcome.PASS: (Outcome.UNKNOWN, Outcome.FAIL), Outcome.UNKNOWN: (Outcome.FAIL,), Outcome.FAIL: ()}

lines_of = st.lists(
    st.builds(
        saw,
        st.sampled_from(CHECKS),
        st.sampled_from(Outcome),
        samples=st.integers(0, 3),
        observed=st.sampled_from([None, 1, 2.5, math.nan, math.inf, True, "text"]),
        round=st.sampled_from(["", "", "before"]),
        severity=st.sampled_from(["", "", "page", "warn", "investigate"]),
        blocked_by=st.sampled_from(["", "", "a", "nowhere"]),
        started_at=st.sampled_from([AT, AT, AT, "", "2020-01-01T00:00:00+00:00"]),
        release=st.sampled_from(["r", "r", "r", "q"]),
    ),
    max_size=12,
)

policies = st.builds(
    policy,
    st.just(A),
    st.just(B),
    st.just(C),
    st.just(spec("preflight/d")),
    st.just(LAG),
    release=st.sampled_from(["", "r"]),
    rules=st.sampled_from(
        [(), (PolicyRule("c", required=False),), (PolicyRule("b", below=2.0),), (PolicyRule("a", decides=Effect.HOLD),)]
    ),
    waivers=st.sampled_from([(), (Waiver("b", "x", "y", NOW.date()),)]),
)


@given(lines_of, policies, st.randoms())
def test_order_and_repetition_make_no_difference(lines: list[Evidence], rules: Policy, random: object) -> None:
    """The same evidence, in any order and repeated, gives the same bytes."""
    shuffled = [*lines, *lines[: len(lines) // 2]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert weigh(shuffled, rules, NOW).dump() == weigh(lines, rules, NOW).dump()


@given(lines_of, policies, st.data())
def test_worse_evidence_never_gives_a_better_verdict(lines: list[Evidence], rules: Policy, data: st.DataObject) -> None:
    """Turning a line into unknown or fail, or adding one, never improves the decision.

    One kind of check is left out of the step from unknown (or unseen) to fail: a failure that is only noted is an
    observation, and an observation may end a hold.
    """
    decision = weigh(lines, rules, NOW).decision
    added = saw(
        data.draw(st.sampled_from(CHECKS)), data.draw(st.sampled_from([Outcome.UNKNOWN, Outcome.FAIL])), release="r"
    )
    if added.check != "c" or added.outcome is Outcome.UNKNOWN:
        assert RANK[weigh([*lines, added], rules, NOW).decision] >= RANK[decision]
    for index, line in enumerate(lines):
        noted = line.check == "c" or line.severity == "investigate"
        for outcome in (
            (Outcome.UNKNOWN,) if noted and line.outcome is Outcome.PASS else () if noted else WORSE[line.outcome]
        ):
            worse = [*lines[:index], dataclasses.replace(line, outcome=outcome), *lines[index + 1 :]]
            assert RANK[weigh(worse, rules, NOW).decision] >= RANK[decision]


@given(lines_of, policies, st.sampled_from(CHECKS))
def test_removing_a_check_never_promotes(lines: list[Evidence], rules: Policy, removed: str) -> None:
    """Removed evidence may end a rollback, and never gives a new promote."""
    before = weigh(lines, rules, NOW).decision
    left = [line for line in lines if line.check != removed]
    if (
        removed in {s.id for s in rules.catalogue}
        and not (removed == "b" and rules.waivers)
        and not (removed == "c" and rules.rules and rules.rules[0].required is False)
    ):
        assert weigh(left, rules, NOW).decision is not Decision.PROMOTE
    elif before is Decision.PROMOTE:
        assert weigh(left, rules, NOW).decision in {Decision.PROMOTE, Decision.HOLD}


@given(lines_of, policies)
def test_unknown_alone_never_rolls_back_and_never_promotes(lines: list[Evidence], rules: Policy) -> None:
    """Without a failure nothing rolls back, and unknowns alone never promote."""
    assume(all(rule.below is None for rule in rules.rules))  # a limit of the policy turns what was seen into a failure
    unfailed = [dataclasses.replace(e, outcome=Outcome.UNKNOWN) if e.outcome is Outcome.FAIL else e for e in lines]
    assert weigh(unfailed, rules, NOW).decision is not Decision.ROLLBACK
    blind = [dataclasses.replace(e, outcome=Outcome.UNKNOWN) for e in lines]
    assert weigh(blind, rules, NOW).decision is Decision.HOLD


@settings(max_examples=50)
@given(lines_of, policies)
def test_evidence_and_policy_survive_the_disk(lines: list[Evidence], rules: Policy) -> None:
    """The stored run gives the same verdict, byte for byte; a torn last line holds."""
    text = chained(e.to_json() for e in lines)
    read = read_bytes(text).evidence
    again = Policy.from_json(json.loads(json.dumps(rules.to_json())))
    assert weigh(read, again, NOW).dump() == weigh(lines, rules, NOW).dump()
    torn = read_bytes(text + b'{"check":"a","outc')
    assert weigh(torn.evidence, rules, NOW).decision is not Decision.PROMOTE
    assert torn.evidence[: len(lines)] == read
