"""How the facts of a fault's run become a cell; a kill needs all of them."""

from dataclasses import replace

import pytest

from gates.proof.fault import Kind, ListedFault
from gates.proof.judgement import FaultFacts, GateRun, Status, judge, names_it
from gates.verdict import Counts, Decision, Effect, Finding, Verdict

FAULT = ListedFault(
    "idempotency/key-ignored",
    "The key is ignored.",
    Kind.SERVICE,
    Decision.ROLLBACK,
    parts="faults.idempotency:key_ignored",
    checks=("drill/idempotency/*",),
    names=("duplicate", "idempotency_key"),
)
NOOP = ListedFault("noop/nothing", "Nothing.", Kind.NONE, Decision.PROMOTE)


def finding(check: str, message: str, outcome: str = "fail") -> Finding:
    return Finding(check, outcome, "page", Effect.ROLLBACK, message)


def run(decision: Decision, *findings: Finding) -> GateRun:
    return GateRun(Verdict(decision, "why", counts=Counts(failed=len(findings)), findings=findings), 1.0)


GREEN = run(Decision.PROMOTE)
CAUGHT = run(Decision.ROLLBACK, finding("drill/idempotency/same-key", "observed two; allowed: a duplicate"))
GOOD = FaultFacts(GREEN, False, True, CAUGHT, True, False, GREEN)
COLLATERAL = run(Decision.ROLLBACK, finding("drill/audit/chain", "a duplicate"))
UNNAMED = run(Decision.ROLLBACK, finding("drill/idempotency/same-key", "observed 500"))
WEAKER = run(Decision.HOLD, finding("drill/idempotency/same-key", "no duplicate"))
BLIND = run(Decision.HOLD, finding("drill/idempotency/same-key", "duplicate", "unknown"))

TABLE = [
    (GOOD, Status.KILLED),
    (replace(GOOD, run=GREEN), Status.SURVIVED),
    (replace(GOOD, run=COLLATERAL), Status.KILLED_COLLATERAL),
    (replace(GOOD, run=UNNAMED), Status.KILLED_COLLATERAL),
    (replace(GOOD, run=WEAKER), Status.MASKED),
    (replace(GOOD, run=BLIND), Status.MASKED),
    (replace(GOOD, run=GateRun(None, error="killed")), Status.HARNESS_ERROR),
    (replace(GOOD, run=None), Status.HARNESS_ERROR),
    (replace(GOOD, error="the stack did not come up"), Status.HARNESS_ERROR),
    (replace(GOOD, witness_still_on=None), Status.HARNESS_ERROR),
    (replace(GOOD, witness_before=True), Status.NOT_INSTALLED),
    (replace(GOOD, witness_on=False), Status.NOT_INSTALLED),
    (replace(GOOD, witness_still_on=False), Status.NOT_INSTALLED),
    (replace(GOOD, witness_after=True), Status.NOT_INSTALLED),
    (replace(GOOD, before=CAUGHT), Status.INVALID_BASELINE),
    (replace(GOOD, before=None), Status.INVALID_BASELINE),
    (replace(GOOD, after=WEAKER), Status.INVALID_BASELINE),
    (replace(GOOD, after=None), Status.INVALID_BASELINE),
    (replace(GOOD, after=GateRun(None, error="killed")), Status.INVALID_BASELINE),
    (FaultFacts(), Status.INVALID_BASELINE),
]


@pytest.mark.parametrize(("facts", "status"), TABLE)
def test_each_set_of_facts_comes_to_its_cell(facts: FaultFacts, status: Status) -> None:
    """Every combination has its defined status, and only the first row is a kill."""
    cell = judge(FAULT, facts)
    assert cell.status is status
    assert cell.as_declared is (status is Status.KILLED)
    assert cell.reason


def test_a_kill_may_be_named_late() -> None:
    """The first finding of the verdict is noted, also if it is another check than the killer."""
    killer, other = CAUGHT.verdict.findings[0], finding("drill/audit/chain", "a gap")  # type: ignore[union-attr]
    cells = [
        judge(FAULT, replace(GOOD, run=run(Decision.ROLLBACK, *found))) for found in ((killer, other), (other, killer))
    ]
    assert [(c.status, c.first) for c in cells] == [(Status.KILLED, killer.check), (Status.KILLED, other.check)]


@pytest.mark.parametrize("run_of_it", [CAUGHT, WEAKER, COLLATERAL, BLIND])
def test_a_noop_that_does_not_survive_is_not_as_declared(run_of_it: GateRun) -> None:
    """For the no-op, any decision but promote is wrong."""
    facts = FaultFacts(GREEN, False, False, run_of_it, False, False, GREEN)
    assert not judge(NOOP, facts).as_declared
    assert judge(NOOP, replace(facts, run=GREEN)).as_declared


def test_the_id_of_a_check_names_nothing() -> None:
    """Names are sought in message, numbers and witness, not in the check's id, which never changes."""
    seen = finding("drill/idempotency/duplicate", "observed 500")
    assert not names_it(seen, FAULT.names)
    assert names_it(replace(seen, witness={"row": "DUPLICATE"}), FAULT.names)
    assert names_it(replace(seen, observed="idempotency_key"), FAULT.names)
    assert names_it(seen, ()), "the fault of a proxy or a trigger needs none"


@pytest.mark.parametrize(("check", "status"), [("drill/proof/a", Status.KILLED), ("drill/b", Status.KILLED_COLLATERAL)])
def test_what_a_declared_check_waits_for_may_see_the_fault_first(check: str, status: Status) -> None:
    """A prerequisite may kill the fault if the declared check is blocked by it."""
    blocked = replace(
        finding("drill/idempotency/same-key", "blocked by drill/proof/a", "unknown"), blocked_by="drill/proof/a"
    )
    seen = run(Decision.ROLLBACK, finding(check, "a duplicate"), blocked)
    assert judge(FAULT, replace(GOOD, run=seen)).status is status


def test_a_hold_may_name_what_was_not_to_be_seen() -> None:
    """Where a hold is due, refused credentials that block the declared check may name the fault."""
    cause = finding("preflight/credentials/admin-token", "ADMIN_JWT is refused: a duplicate", "unknown")
    blocked = replace(finding("drill/idempotency/same-key", "", "unknown"), blocked_by=cause.check)
    facts = replace(GOOD, run=run(Decision.HOLD, finding("drill/b", "2 bodies"), cause, blocked))
    assert judge(replace(FAULT, decision=Decision.HOLD), facts).status is Status.KILLED
    assert judge(replace(FAULT, decision=None), facts).status is Status.KILLED_COLLATERAL
    nameless = replace(FAULT, decision=Decision.HOLD, names=())
    assert judge(nameless, facts).status is Status.KILLED_COLLATERAL, "any unknown check would do"
    other = replace(cause, check="drill/outbox/delivered-once")
    busy = run(Decision.HOLD, other, replace(blocked, blocked_by=other.check))
    by_hold = replace(FAULT, decision=Decision.HOLD)
    assert judge(by_hold, replace(GOOD, run=busy)).status is Status.MASKED, "a drill that could not look"
