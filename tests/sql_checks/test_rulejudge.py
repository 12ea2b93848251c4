"""Judging a rule: no row, NULL, NaN, few, stale or impossible values never pass."""

import datetime as dt
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gates.evidence import Outcome, Severity
from sql_checks.rules.judge import RuleSample, judge
from tests.sql_checks.conftest import RULES

NOW = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
LAG, SUCCESS = RULES["outbox-lag"], RULES["agent-success"]


def fleet(value: float | None, samples: int = 100, age_s: float = 1) -> RuleSample:
    return RuleSample("all", value, samples, NOW - dt.timedelta(seconds=age_s))


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [fleet(1.0), fleet(1.0)],
        [RuleSample("tenant", 1.0, 100)],
        [fleet(None)],
        [fleet(math.nan)],
        [fleet(math.inf)],
        [fleet(-1.0)],
        [fleet(1.0, samples=0)],
        [fleet(1.0, age_s=601)],
        [fleet(1.0, age_s=-61)],
        [fleet(1.0), RuleSample("tenant", None, 100)],
        [fleet(1.0), RuleSample("tenant", math.nan, 100)],
    ],
)
def test_what_proves_nothing_is_unknown(samples: list[RuleSample]) -> None:
    """Only a real observation passes."""
    assert judge(LAG, samples, NOW).outcome is Outcome.UNKNOWN


def test_the_worst_breach_decides_and_is_named() -> None:
    """The gravest breach, and of equals the farthest from its limit, is the witness."""
    rows = [fleet(2.5), RuleSample("a", 3.0, 50, NOW), RuleSample("b", 9.0, 50, NOW), RuleSample("c", 7.0, 50, NOW)]
    found = judge(LAG, rows, NOW)
    assert (found.outcome, found.severity, found.broken) == (Outcome.FAIL, Severity.PAGE, 4)
    assert "outbox-lag of b: 9 s" in found.message


def test_a_falling_backlog_holds_and_does_not_page() -> None:
    """A large backlog that only falls is no rollback."""
    assert judge(LAG, [replace(fleet(60.0), draining=True)], NOW).severity is Severity.WARN


def test_a_bad_tenant_counts_though_the_fleet_has_too_few() -> None:
    """A breach counts even if the fleet has too few samples."""
    rows = [fleet(0.1, samples=1), RuleSample("bad", 60.0, 50, NOW)]
    assert judge(LAG, rows, NOW).outcome is Outcome.FAIL


@given(st.floats(min_value=0, max_value=1, allow_nan=False), st.integers(0, 1000))
def test_pass_means_seen_and_within_the_limit(value: float, samples: int) -> None:
    """A pass always has enough samples and a value on the good side of every limit."""
    found = judge(SUCCESS, [fleet(value, samples)], NOW)
    if found.outcome is Outcome.PASS:
        assert samples >= SUCCESS.min_samples
        assert all(value >= limit for _, limit in SUCCESS.limits)
    else:
        assert samples < SUCCESS.min_samples or any(value < limit for _, limit in SUCCESS.limits)


def test_too_few_samples_are_said_of_the_window_that_they_are_counted_in() -> None:
    """The burn rate judges an hour, and counts the tasks of its last five minutes."""
    rule = RULES["agent-success-burn-fast"]
    found = judge(rule, [fleet(0.0, samples=3)], NOW)
    assert found.message == "3 samples observed in 5 minutes, at least 20 needed"


def test_what_is_looked_at_now_is_said_so() -> None:
    """A rule without a window has wording of its own, not "over now"."""
    rule = RULES["dlq-size"]
    assert judge(rule, [fleet(298.0)], NOW).message.startswith("dlq-size of all: 298 items observed now, > 9 items")
    assert judge(rule, [fleet(0.0, samples=0)], NOW).message == "0 samples observed now, at least 1 needed"
