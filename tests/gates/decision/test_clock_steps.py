"""If a clock was set during the run, what depends on times proves nothing; everything else stands."""

from dataclasses import replace

import pytest

from gates.decision.clock import RELEASE, SERVICE_ALONE, SKEW, STEPPED_S
from gates.decision.decide import decide
from gates.decision.rules import PolicyRule
from gates.evidence import Outcome, Severity
from gates.verdict import Decision, Effect
from tests.gates.decision.small_policy import NOW, policy, saw, spec

MESSAGE = "the database's clock stepped by -600.0 s during the run"
STEADY = saw(SKEW)
STEPPED = saw(SKEW, Outcome.UNKNOWN, message=MESSAGE, details={STEPPED_S: -600.0})
CLOCKS = spec(SKEW, Severity.WARN)
LATE = saw("alert/outbox-lag", Outcome.FAIL, message="600 s; allowed: 30 s")
TIMED = ("alert/outbox-lag", "load/outbox_lag_ms/p(95)", "drill/outbox/one", "sql/spot/audit-within-clock", "sql/own")
TIMELESS = {RELEASE: "", "sql/rls/other-tenants-hidden": "tenancy", "sql/spot/rls-enabled": "schema"}


@pytest.mark.parametrize("check", TIMED)
def test_a_failure_by_times_holds_where_a_clock_was_set(check: str) -> None:
    """The verdict names the clock as the cause; with a steady clock the same failure rolls back."""
    rules, late = policy(CLOCKS, spec(check)), replace(LATE, check=check)
    assert decide([STEADY, late], rules, NOW).decision is Decision.ROLLBACK
    held = decide([STEADY, STEPPED, late], rules, NOW)
    assert held.decision is Decision.HOLD
    assert held.reason == f"{SKEW} is unknown: {MESSAGE}"
    behind = next(f for f in held.findings if f.check == check)
    assert (behind.outcome, behind.effect, behind.blocked_by) == ("unknown", Effect.HOLD, SKEW)


@pytest.mark.parametrize("check", TIMELESS)
def test_a_failure_that_goes_by_no_time_rolls_back_whatever_the_clock_did(check: str) -> None:
    """Missing row-level security and a wrong release do not depend on time."""
    rules = policy(CLOCKS, spec(check, area=TIMELESS[check]), spec("alert/outbox-lag"))
    verdict = decide([STEPPED, saw(check, Outcome.FAIL), LATE], rules, NOW)
    assert verdict.decision is Decision.ROLLBACK
    assert verdict.reason.startswith(f"{check} failed")


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ("drill/tokens/x", Decision.HOLD),
        ("preflight/credentials/admin-token", Decision.HOLD),
        ("sql/own", Decision.ROLLBACK),
    ],
)
def test_the_clock_of_the_service_dates_no_row(check: str, expected: Decision) -> None:
    """If only the service's clock was set, checks of rows stand: the database dates them."""
    alone = replace(STEPPED, details={STEPPED_S: 600.0, SERVICE_ALONE: True})
    rules = policy(CLOCKS, spec(check))
    assert decide([STEADY, alone, saw(check, Outcome.FAIL)], rules, NOW).decision is expected


def test_a_limit_of_the_policy_is_no_verdict_by_such_times_either() -> None:
    """A failure by the policy's own limit is in doubt, too: the same clock measured it."""
    rules = policy(CLOCKS, spec("alert/age"), rules=(PolicyRule("alert/*", below=5.0),))
    passed = saw("alert/age", observed=600.0)
    assert decide([STEADY, passed], rules, NOW).decision is Decision.ROLLBACK
    assert decide([STEPPED, passed], rules, NOW).decision is Decision.HOLD


def test_a_clock_that_was_set_never_promotes_and_makes_no_note_graver() -> None:
    """The run holds even if all else passed; a finding that is only noted stays noted."""
    rules = policy(CLOCKS, spec("a"), spec("b", Severity.INVESTIGATE))
    held = decide([STEPPED, saw("a"), saw("b", Outcome.FAIL)], rules, NOW)
    assert held.decision is Decision.HOLD
    assert [f.check for f in held.findings if f.effect is Effect.HOLD] == [SKEW]
