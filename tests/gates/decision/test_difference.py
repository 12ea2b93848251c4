"""On a deployment not built from the contract, a check that never passed holds and does not roll back."""

import dataclasses
import os
from pathlib import Path

import pytest

from gates.contract.contract import contract
from gates.decision.decide import decide
from gates.decision.difference import PASSED_HERE
from gates.decision.rules import Policy, PolicyRule
from gates.evidence import Evidence, Outcome, TargetKind
from gates.stages import passed
from gates.verdict import Decision, Effect
from tests.gates.decision.small_policy import NOW, saw, spec
from tests.gates.decision.test_claims import without
from tests.gates.decision.test_floor import CATALOGUE

DRILL = "drill/tokens/of-the-test"
CHECKS = (*CATALOGUE, spec(DRILL, area="tokens"), spec("queue/lag", area="queue"), spec("sql/ours/one", area=""))
OWN_WORDS = Policy(CHECKS, TargetKind.STAGING, names='{"tables": {}}')
A_PART = Policy(CHECKS, TargetKind.STAGING, scope=contract().scope(without("audit")))
BY_THE_CONTRACT = Policy(CHECKS, TargetKind.STAGING)


def failing(check: str, *before: str) -> list[Evidence]:
    """Evidence in which one check fails; the checks in `before` are remembered as passed."""
    known = dataclasses.replace(saw(PASSED_HERE), details={"checks": [*before]})
    lines = [saw(s.id, Outcome.FAIL if s.id == check else Outcome.PASS, observed=1.0, limit=2.0) for s in CHECKS]
    return [*lines, *([known] if before else [])]


@pytest.mark.parametrize("policy", [OWN_WORDS, A_PART], ids=["names", "claims"])
def test_what_never_passed_here_holds_and_says_so(policy: Policy) -> None:
    """A healthy deployment that differs is neither rolled back on its first day nor promoted."""
    verdict = decide(failing(DRILL), policy, NOW)
    assert verdict.decision is Decision.HOLD
    (finding,) = [f for f in verdict.findings if f.check == DRILL]
    assert "is not known to have passed on this deployment" in finding.message
    assert f"{DRILL} passes, or the policy says that it rolls back" in verdict.ends_when
    assert decide(failing(DRILL, "drill/another"), policy, NOW).decision is Decision.HOLD


@pytest.mark.parametrize("policy", [OWN_WORDS, A_PART], ids=["names", "claims"])
def test_what_passed_here_once_rolls_back(policy: Policy) -> None:
    """If the check passed before, the release made the difference."""
    assert decide(failing(DRILL, DRILL), policy, NOW).decision is Decision.ROLLBACK


def test_a_deployment_of_the_contract_needs_no_memory() -> None:
    """Without own names and with all claimed, every release must keep the contract."""
    assert decide(failing(DRILL), BY_THE_CONTRACT, NOW).decision is Decision.ROLLBACK


def test_the_users_own_checks_queues_and_rules_roll_back_from_the_first_run_on() -> None:
    """They are written for this deployment."""
    assert decide(failing("sql/ours/one"), OWN_WORDS, NOW).decision is Decision.ROLLBACK
    ruled = dataclasses.replace(OWN_WORDS, rules=(PolicyRule("drill/tokens/*", decides=Effect.ROLLBACK),))
    assert decide(failing(DRILL), ruled, NOW).decision is Decision.ROLLBACK


def test_a_memory_that_cannot_be_trusted_is_none() -> None:
    """A remembered pass without a time shows no difference between releases."""
    lines = failing(DRILL, DRILL)
    lines[-1] = dataclasses.replace(lines[-1], started_at="")
    assert decide(lines, OWN_WORDS, NOW).decision is Decision.HOLD


def test_what_passed_is_kept_for_these_names_and_claims_alone(tmp_path: Path) -> None:
    """Under another mapping, the mapping may be the cause of a failure."""
    verdict = decide(failing(DRILL), OWN_WORDS, NOW)
    passed.remember(tmp_path, OWN_WORDS, [f.check for f in verdict.findings])
    kept = passed.read(tmp_path, OWN_WORDS)
    assert "queue/lag" in kept
    assert DRILL not in kept
    other = dataclasses.replace(OWN_WORDS, names='{"tables": {"events": "ereignisse"}}')
    assert passed.read(tmp_path, other) == []
    passed.remember(tmp_path, OWN_WORDS, [])
    assert {DRILL, "sql/ours/one"} <= set(passed.read(tmp_path, OWN_WORDS))


def test_of_a_deployment_of_the_contract_nothing_is_kept(tmp_path: Path) -> None:
    """It needs no memory, so none is written."""
    passed.remember(tmp_path, BY_THE_CONTRACT, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", "{", '{"dialect": 1}', "[" * 5000, '{"dialect": null, "checks": 3}'])
def test_a_broken_memory_is_empty(tmp_path: Path, text: str) -> None:
    """A failure then holds instead of rolling back, and the memory is written anew."""
    (tmp_path / passed.FILE).write_text(text)
    assert passed.read(tmp_path, OWN_WORDS) == []


def test_a_memory_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """A named pipe in its place does not hang the run."""
    os.mkfifo(tmp_path / passed.FILE)
    assert passed.read(tmp_path, OWN_WORDS) == []
