"""A breach pages only where it is proved: the error rates that the module states, simulated."""

import dataclasses
import datetime as dt
import math
import random
from collections.abc import Sequence

import pytest

from benchmarks.decision_rates import in_batches
from gates.decision.dependence import spread, together
from gates.decision.intervals import hypergeometric_tail
from gates.evidence import Outcome, Severity
from sql_checks.rules.judge import RuleSample, judge, judge_proved
from sql_checks.rules.proof import Count, needed, proved
from tests.sql_checks.conftest import RULES

NOW = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
SUCCESS = RULES["agent-success"]
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


@pytest.mark.parametrize("giant", [2000, 20_000])
def test_a_healthy_fleet_beside_a_giant_goes_on(giant: int) -> None:
    """Nineteen tenants of 50 tasks are too few to say that one with most of all tasks fails more often than they."""
    rng, held, runs = random.Random(5), 0, 200
    for _ in range(runs):
        bads = rng.choices(range(51), pmf(50, 0.01), k=19)
        large = round(rng.gauss(giant / 100, math.sqrt(giant * 0.0099)))
        counts = [(large, giant), *((bad, 50) for bad in bads)]
        bad, total = (sum(side) for side in zip(*counts, strict=True))
        rows = [RuleSample(f"t{i}", 1 - b / n, n, NOW, bad=b) for i, (b, n) in enumerate(counts)]
        rows.append(RuleSample("all", 1 - bad / total, total, NOW, bad=bad))
        held += judge_proved(SUCCESS, rows, NOW).outcome is not Outcome.PASS
    assert held <= 0.05 * runs


@pytest.mark.parametrize(("k", "n", "bad", "total"), [(3, 10, 7, 40), (1, 10, 7, 40), (5, 5, 5, 9), (0, 3, 2, 9)])
def test_fisher_s_tail_is_exact(k: int, n: int, bad: int, total: int) -> None:
    """Against the sum of whole numbers; far under the mean it is one, also where the smallest terms underflow."""
    ways = sum(math.comb(bad, i) * math.comb(total - bad, n - i) for i in range(k, min(n, bad) + 1))
    assert hypergeometric_tail(k, n, bad, total) == pytest.approx(ways / math.comb(total, n))
    assert hypergeometric_tail(1, 20_000, 3000, 21_000) == pytest.approx(1.0)
    assert hypergeometric_tail(20_001, 20_000, 30_000, 60_000) == 0.0


@pytest.mark.parametrize("apart", [0.01, 0.03])
def test_tenants_that_differ_do_not_page_a_fleet_that_keeps_the_limit(apart: float) -> None:
    """Where the tenants' true rates spread around 1 % of failures, the fleet is paged in under one window of a hundred
    by its own number.
    """
    rng, a = random.Random(11), 0.01 * (1 - apart) / apart
    b = 0.99 * (1 - apart) / apart
    paged = 0
    for _ in range(500):
        rates = [rng.betavariate(a, b) for _ in range(20)]
        bads = [sum(rng.random() < rate for _ in range(50)) for rate in rates]
        fleet_alone = {"all": Count(sum(bads), 1000, spread((bad, 50) for bad in bads))}
        paged += bool(proved(fleet_alone, 0.02))
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


def test_a_breach_that_is_not_proved_holds_and_says_what_it_lacks() -> None:
    """Three failures in 50 tasks beside three tenants without one are a warning, with the samples that would tell."""
    judged = judge_proved(SUCCESS, fleet([3, 0, 0, 0], 50), NOW)
    assert (judged.outcome, judged.severity) == (Outcome.FAIL, Severity.WARN)
    assert "That may be chance: 3 of 50 samples are bad, 2% may be, and 5 subjects were looked at" in judged.message
    more = needed(Count(3, 50), 5, 0.02)
    assert more is not None
    assert judged.samples_needed == more - 50
    assert f"{more} samples would tell" in judged.message
    others = {f"x{i}": Count(0, 50) for i in range(4)}
    assert proved({"t0": Count(round(more * 3 / 50) + 1, more), **others}, 0.02) == {"t0"}


@pytest.mark.parametrize(("tenants", "n", "runs"), [(20, 50, 1000), (20, 200, 1000), (200, 50, 300), (2000, 50, 40)])
def test_a_healthy_fleet_of_small_tenants_goes_on(tenants: int, n: int, runs: int) -> None:
    """At a true 99 % against 98 % it passes in 96 of 100 windows, and says how many tenants are over the limit."""
    rng, weights = random.Random(17), pmf(n, 0.01)
    drawn = [judge_proved(SUCCESS, fleet(rng.choices(range(n + 1), weights, k=tenants), n), NOW) for _ in range(runs)]
    passed = [one for one in drawn if one.outcome is Outcome.PASS]
    assert len(passed) >= 0.96 * runs
    assert any("tenants are over the limit, as chance has it" in one.message for one in passed)


@pytest.mark.parametrize(
    ("bads", "n"),
    [
        ([2, *[0] * 19], 50),  # nobody else fails: one tenant at 96 % stands out
        ([5, 2, 1, 1, *[0] * 16], 50),  # the others fail now and then, this one at 90 %
        ([2] * 40 + [0] * 160, 50),  # nobody stands out, but so many are over the limit
        ([2] * 100 + [0] * 100, 50),  # half of them: the fleet is at the limit
        ([3, 0], 50),  # too few tenants to explain anything
    ],
)
def test_what_chance_does_not_explain_holds(bads: Sequence[int], n: int) -> None:
    """A tenant that stands out, or too many over the limit, hold, proved or not."""
    assert judge_proved(SUCCESS, fleet(bads, n), NOW).outcome is not Outcome.PASS


@pytest.mark.parametrize(("n", "share", "least"), [(200, 0.10, 0.98), (100, 0.10, 0.88), (300, 0.05, 0.80)])
def test_a_bad_tenant_among_twenty_seldom_passes(n: int, share: float, least: float) -> None:
    """Beside nineteen at 99 %, a tenant at 90 % with 200 tasks holds or pages in 98 of 100 windows."""
    rng, good, bad = random.Random(19), pmf(n, 0.01), pmf(n, share)
    drawn = [rng.choices(range(n + 1), good, k=19) + rng.choices(range(n + 1), bad) for _ in range(300)]
    held = sum(judge_proved(SUCCESS, fleet(bads, n), NOW).outcome is not Outcome.PASS for bads in drawn)
    assert held >= least * 300


def test_a_proved_breach_pages_beside_one_that_may_be_chance() -> None:
    """What is proved is named, also where another tenant's bare number is worse."""
    rows = [*fleet([0] * 8, 1000), RuleSample("few", 0.94, 50, NOW, bad=3), RuleSample("many", 0.95, 1000, NOW, bad=50)]
    judged = judge_proved(SUCCESS, rows, NOW)
    assert (judged.severity, judged.sample and judged.sample.subject) == (Severity.PAGE, "many")


def test_holm_goes_on_after_the_first() -> None:
    """The second smallest chance has one rival less."""
    assert proved({"a": Count(30, 100), "b": Count(7, 100), "c": Count(2, 100)}, 0.02) == {"a", "b"}
    assert proved({"a": Count(2, 100), "b": Count(7, 100), "c": Count(2, 100)}, 0.02) == {"b"}
    assert proved({}, 0.02) == frozenset()


@pytest.mark.parametrize("size", [2, 5, 20])
@pytest.mark.parametrize("tenants", [[50] * 20, [200] * 20, [50, 100, 400, 1000] * 50])
def test_tasks_that_fail_together_do_not_page_a_healthy_fleet(tenants: list[int], size: int) -> None:
    """At a true 99 %, a batch counts once: at most one window in a hundred pages. Task by task many would."""
    rng, runs = random.Random(29), 200 if sum(tenants) < 10_000 else 60
    windows = [in_batches(rng, tenants, 0.01, size) for _ in range(runs)]
    assert sum(judge_proved(SUCCESS, rows, NOW).severity is Severity.PAGE for rows in windows) <= runs // 100
    if size == 20:
        one_by_one = [[dataclasses.replace(s, groups=0) for s in rows] for rows in windows]
        assert sum(judge_proved(SUCCESS, rows, NOW).severity is Severity.PAGE for rows in one_by_one) > runs // 3


@pytest.mark.parametrize("size", [1, 5])
def test_a_tenant_whose_batches_fail_is_named(size: int) -> None:
    """One at 80 % with 1,000 tasks among nineteen at 99 %, whether its tasks fail one by one or five together."""
    rng, named = random.Random(31), 0
    for _ in range(100):
        good = [s for s in in_batches(rng, [200] * 19, 0.01, size) if s.subject != "all"]
        (bad,) = [dataclasses.replace(s, subject="bad") for s in in_batches(rng, [1000], 0.2, size)[1:]]
        total, failed = 200 * 19 + 1000, sum(s.bad or 0 for s in (*good, bad))
        judged = judge_proved(SUCCESS, [RuleSample("all", 1 - failed / total, total, NOW, bad=failed), *good, bad], NOW)
        named += judged.severity is Severity.PAGE and judged.sample is not None and judged.sample.subject == "bad"
    assert named >= 95


def test_what_fails_together_is_told_from_the_groups() -> None:
    """From how many groups have a bad sample, beside how many would, were they independent."""
    assert together(10, 1000, 200, 2) == pytest.approx(5.0, rel=0.02)  # two batches of five
    assert together(100, 1000, 200, 82) == pytest.approx(1.0, rel=0.02)  # one by one: 1 - 0.9^5 of the groups
    assert together(5, 50, 46, 1) == pytest.approx(5.0, rel=0.1)  # one batch among tasks that come alone
    assert together(20, 200, 1, 1) == together(50, 50, 10, 10) == together(0, 50, 10, 0) == 1.0  # nothing is known
    assert together(5, 50, 0, 0) == together(3, 50, 20, 20) == 1.0


def passes_alone(n: int, true: float) -> float:
    """How often a fleet of one tenant with so many tasks passes, exactly."""
    return sum(
        chance
        for bad, chance in enumerate(pmf(n, true))
        if chance > 1e-12 and judge_proved(SUCCESS, fleet([bad], n), NOW).outcome is Outcome.PASS
    )


@pytest.mark.parametrize("n", [50, 61, 100, 200, 400])
def test_a_bad_fleet_does_not_pass_by_few_samples(n: int) -> None:
    """At 95 % against 98 % it passes in at most one window of twenty, at 90 % in at most one of a hundred."""
    assert passes_alone(n, 0.05) <= 0.05
    assert passes_alone(n, 0.10) <= 0.01


@pytest.mark.parametrize(
    ("n", "true", "least"), [(61, 0.001, 0.93), (100, 0.001, 0.99), (200, 0.01, 0.93), (400, 0.01, 0.97)]
)
def test_a_healthy_small_fleet_does_not_hold_for_ever(n: int, true: float, least: float) -> None:
    """At 99.9 % it passes with 61 tasks, at 99 % with two hundred, in 93 of 100 windows."""
    assert passes_alone(n, true) >= least


def test_a_pass_that_is_not_proved_is_unknown_and_says_what_it_lacks() -> None:
    """50 tasks without a failure: eleven more would exclude 4.9 %."""
    judged = judge_proved(SUCCESS, fleet([0], 50), NOW)
    assert (judged.outcome, judged.samples_needed) == (Outcome.UNKNOWN, 11)
    assert "0 of 50 samples are bad" in judged.message
    assert "61 samples would tell" in judged.message
    assert judge(SUCCESS, fleet([0], 50), NOW).outcome is Outcome.PASS


def test_tenants_that_differ_do_not_pass_a_bad_fleet() -> None:
    """Tenants' true rates spread around 5 % of failures: a fleet of 20 passes in under one window of twenty."""
    rng, a, b, passed = random.Random(13), 0.05 * 0.97 / 0.03, 0.95 * 0.97 / 0.03, 0
    for _ in range(400):
        bads = [sum(rng.random() < rate for _ in range(50)) for rate in (rng.betavariate(a, b) for _ in range(20))]
        passed += judge_proved(SUCCESS, fleet(bads, 50), NOW).outcome is Outcome.PASS
    assert passed <= 20


def test_the_clustering_is_the_variance_of_a_ratio() -> None:
    """Many failures in two of twenty tenants are clustered; one failure each in eight of them is not."""
    assert spread([(1, 50)] * 8 + [(0, 50)] * 12) == 1.0
    assert spread([(10, 50)] * 2 + [(0, 50)] * 18) == pytest.approx(9.67, abs=0.1)
    assert spread([(0, 50)] * 20) == spread([(3, 50)]) == 1.0
