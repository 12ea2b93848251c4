"""A breach pages only where it is proved: the error rates that the module states, simulated."""

from __future__ import annotations

import datetime as dt
import math
import random
from collections.abc import Sequence

import pytest

from gates.evidence import Outcome, Severity
from sql_checks.rulefile import read_all_rules
from sql_checks.rulejudge import RuleSample, judge, judge_proved
from sql_checks.ruleproof import clustering, needed, proved

NOW = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
SUCCESS = next(r for r in read_all_rules() if r.name == "agent-success")
RUNS = 2000


def pmf(n: int, p: float) -> list[float]:
    """The binomial distribution."""
    return [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]


def fleet(bads: Sequence[int], n: int) -> list[RuleSample]:
    """A fleet of tenants of `n` tasks each, of which so many failed, as the rule's query gives it."""
    total, bad = n * len(bads), sum(bads)
    rows = [RuleSample(f"t{i}", 1 - b / n, n, NOW, bad=b) for i, b in enumerate(bads)]
    return [RuleSample("all", 1 - bad / total, total, NOW, bad=bad), *rows]


def pages(bads: Sequence[int], n: int) -> bool:
    return judge_proved(SUCCESS, fleet(bads, n), NOW).severity is Severity.PAGE


@pytest.mark.parametrize(("tenants", "runs"), [(20, RUNS), (200, 600), (2000, 60)])
def test_a_healthy_fleet_is_not_paged(tenants: int, runs: int) -> None:
    """At a true 99 % against 98 %, fewer than one window in a hundred pages; by the bare numbers most would."""
    rng = random.Random(7)
    drawn = [rng.choices(range(51), pmf(50, 0.01), k=tenants) for _ in range(runs)]
    assert sum(pages(bads, 50) for bads in drawn) <= runs // 200
    bare = sum(judge(SUCCESS, fleet(bads, 50), NOW).severity is Severity.PAGE for bads in drawn)
    assert bare > 0.8 * runs


@pytest.mark.parametrize("spread", [0.01, 0.03])
def test_tenants_that_differ_do_not_page_a_fleet_that_keeps_the_limit(spread: float) -> None:
    """Where the tenants' true rates spread around 1 % of failures, the fleet is paged in under one window of a hundred
    by its own number.
    """
    rng, a = random.Random(11), 0.01 * (1 - spread) / spread
    b = 0.99 * (1 - spread) / spread
    paged = 0
    for _ in range(500):
        rates = [rng.betavariate(a, b) for _ in range(20)]
        bads = [sum(rng.random() < rate for _ in range(50)) for rate in rates]
        counts = {"all": (sum(bads), 1000)}
        paged += bool(proved(counts, [(bad, 50) for bad in bads], 0.02))
    assert paged <= 10


@pytest.mark.parametrize(("n", "least"), [(200, 0.88), (300, 0.95), (1000, 0.99)])
def test_one_bad_tenant_among_a_thousand_is_named(n: int, least: float) -> None:
    """A tenant at 90 % among 999 at 99 % is named in 95 of 100 windows, from 300 tasks on."""
    rng, found, runs = random.Random(3), 0, 100
    good, bad = pmf(n, 0.01), pmf(n, 0.10)
    for _ in range(runs):
        bads = rng.choices(range(n + 1), good, k=999) + rng.choices(range(n + 1), bad)
        judged = judge_proved(SUCCESS, fleet(bads, n), NOW)
        found += judged.severity is Severity.PAGE and judged.sample is not None and judged.sample.subject == "t999"
    assert found >= least * runs


def test_a_breach_that_may_be_chance_holds_and_says_what_it_lacks() -> None:
    """Two failures in 50 tasks are a warning, with the number of samples that would tell."""
    judged = judge_proved(SUCCESS, fleet([2, 0, 0, 0], 50), NOW)
    assert (judged.outcome, judged.severity) == (Outcome.FAIL, Severity.WARN)
    assert "That may be chance: 2 of 50 samples are bad, 2% may be, and 5 subjects were looked at" in judged.message
    more = needed(2, 50, 5, 0.02)
    assert more is not None
    assert judged.samples_needed == more - 50
    assert f"{more} samples would tell" in judged.message
    assert proved({"t0": (round(more * 2 / 50) + 1, more), **{f"x{i}": (0, 50) for i in range(4)}}, [], 0.02) == {"t0"}


def test_a_proved_breach_pages_beside_one_that_may_be_chance() -> None:
    """What is proved is named, also where another tenant's bare number is worse."""
    rows = [*fleet([0] * 8, 1000), RuleSample("few", 0.94, 50, NOW, bad=3), RuleSample("many", 0.95, 1000, NOW, bad=50)]
    judged = judge_proved(SUCCESS, rows, NOW)
    assert (judged.severity, judged.sample and judged.sample.subject) == (Severity.PAGE, "many")


def test_holm_goes_on_after_the_first() -> None:
    """The second smallest chance has one rival less."""
    assert proved({"a": (30, 100), "b": (7, 100), "c": (2, 100)}, [], 0.02) == {"a", "b"}
    assert proved({"a": (2, 100), "b": (7, 100), "c": (2, 100)}, [], 0.02) == {"b"}
    assert proved({}, [], 0.02) == frozenset()


def test_the_clustering_is_the_variance_of_a_ratio() -> None:
    """Twenty tenants of 50 with one failure in eight of them, and in all alike."""
    assert clustering([(1, 50)] * 8 + [(0, 50)] * 12) == 1.0
    assert clustering([(10, 50)] * 2 + [(0, 50)] * 18) == pytest.approx(9.67, abs=0.1)
    assert clustering([(0, 50)] * 20) == clustering([(3, 50)]) == 1.0
