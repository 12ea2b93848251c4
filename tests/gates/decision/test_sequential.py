"""Sequential tests, which allow a look at any time: their published numbers and error rates."""

import itertools
import math
import random

import pytest

from gates.decision.intervals import exact_test, quantile_bounds, share_bounds
from gates.decision.sequential import anytime_test, log_evidence, mean_proved, proves


@pytest.mark.parametrize(
    ("bad", "samples", "under", "expected"),
    [(0, 300, True, 4.63465), (5, 500, True, 0.81301), (10, 100, False, 6.33834)],
)
def test_the_evidence_is_that_of_the_published_mixture(bad: int, samples: int, under: bool, expected: float) -> None:
    """It equals scipy's result for a limit of 2 % and the prior best at 300 samples."""
    assert log_evidence(bad, samples, 0.02, 0.05, under=under) == pytest.approx(expected, abs=1e-5)


def test_the_evidence_is_the_integral_of_the_bets() -> None:
    """It is the likelihood ratio averaged over the prior."""
    weight = 300.0 / 6.328944 - 1.0
    a, b, limit, bad, samples = 0.02 * weight, 0.98 * weight, 0.02, 2, 400
    steps = [limit * (step + 0.5) / 20_000 for step in range(20_000)]
    prior = [p ** (a - 1) * (1 - p) ** (b - 1) for p in steps]
    ratio = [(p / limit) ** bad * ((1 - p) / (1 - limit)) ** (samples - bad) for p in steps]
    integral = math.fsum(w * r for w, r in zip(prior, ratio, strict=True)) / math.fsum(prior)
    assert log_evidence(bad, samples, limit, 0.05, under=True) == pytest.approx(math.log(integral), abs=0.01)


def test_clear_cases_are_decided_by_few_samples() -> None:
    """All good or all bad is decided soon, and extremes stay finite."""
    fewest = {
        limit: next(n for n in itertools.count(1) if proves(0, n, limit, 0.05, under=True)) for limit in (0.02, 0.05)
    }
    assert fewest == {0.02: 205, 0.05: 80}
    assert proves(4, 4, 0.02, 0.05, under=False)
    assert not proves(500, 500, 0.05, 0.01, under=True)
    assert proves(10**6, 10**6, 1e-9, 0.01, under=False)
    assert not proves(0, 10**6, 1.0, 0.01, under=True)


@pytest.mark.parametrize("limit", [0.02, 0.05, 0.5])
def test_looking_after_each_sample_keeps_the_risk(limit: float) -> None:
    """At the limit, with a look after every sample, each wrong decision stays under 5 %."""
    rng, runs, wrong = random.Random(5), 400, {True: 0, False: 0}
    for _ in range(runs):
        bad, decided = 0, {True: False, False: False}
        for n in range(1, 601):
            bad += rng.random() < limit
            if n % 4 == 0:
                for under in (True, False):
                    decided[under] = decided[under] or proves(bad, n, limit, 0.05, under=under)
        for under in (True, False):
            wrong[under] += decided[under]
    assert max(wrong.values()) <= 0.06 * runs  # the risk, and what 400 runs leave to chance


def test_bounds_of_a_sequence_are_wider_than_those_of_one_look() -> None:
    """They are only a little wider, and contain the estimate."""
    for bad, n in ((0, 200), (3, 400), (400, 400), (37, 90)):
        once, often = share_bounds(bad, n, exact_test(0.05)), share_bounds(bad, n, anytime_test(0.05))
        assert often[0] <= once[0] <= bad / n <= once[1] <= often[1]
    assert share_bounds(5, 500, exact_test(0.05))[1] == pytest.approx(1 - 0.97909, abs=1e-5)
    values = [float(value) for value in range(1, 1001)]
    low, high = quantile_bounds(values, 95.0, anytime_test(0.05))
    assert 920 < low < 940
    assert 965 < high < 980
    assert quantile_bounds(values, 95.0, exact_test(0.05), worth=50)[1] == math.inf


@pytest.mark.parametrize(("true", "under", "most"), [(0.2, True, 0.05), (0.2, False, 0.05), (0.05, True, 1.0)])
def test_bets_on_a_mean_keep_the_risk(true: float, under: bool, most: float) -> None:
    """Skewed values at the limit are decided in under 5 % of the runs; clear cases are decided."""
    rng, runs = random.Random(3), 300
    decided = 0
    for _ in range(runs):
        blocks = [1.0 if rng.random() < true else 0.0 for _ in range(120)]
        decided += any(mean_proved(blocks[:n], 0.2, 1.0, 0.05, under=under) for n in range(10, 121, 10))
    assert decided <= most * runs
    assert decided >= (0.95 * runs if true < 0.2 else 0)
