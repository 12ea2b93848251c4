"""How many independent samples a run is worth, with stalls, slow waves and independent samples."""

import random
import statistics

import pytest

from gates.decision.dependence import Dependence, dependence, spread
from gates.decision.intervals import exact_test, share_bounds


def slots_of(bad: list[bool], each: int) -> list[tuple[float, int]]:
    """Samples in order of time, with the same number in each slot."""
    return [(sum(bad[at : at + each]), len(bad[at : at + each])) for at in range(0, len(bad), each)]


def test_the_correction_is_that_of_korn_and_graubard() -> None:
    """The published case: 6,000 samples, 1 % bad, a design effect of ten from 30 blocks."""
    bad, worth = Dependence(10.0, 30).effective(60, 6000, 0.95)
    assert worth == pytest.approx(562.5, abs=0.5)
    assert share_bounds(bad, worth, exact_test(0.05))[1] == pytest.approx(0.0201, abs=1e-4)


@pytest.mark.parametrize(("share", "each"), [(0.01, 3), (0.05, 1), (0.05, 5), (0.3, 2), (0.9, 4)])
def test_independent_samples_keep_most_of_their_worth(share: float, each: int) -> None:
    """On average four in five still count, whatever the share of bad ones."""
    rng = random.Random(8)
    worth = []
    for _ in range(60):
        found = dependence(slots_of([rng.random() < share for _ in range(200 * each)], each), 0.05)
        worth.append(found.effective(0, 200 * each, 0.96)[1] / (200 * each))
    assert statistics.fmean(worth) > 0.78


@pytest.mark.parametrize(("stalls", "length"), [(1, 30), (3, 20), (8, 4)])
def test_a_stall_is_one_sample(stalls: int, length: int) -> None:
    """Three stalls leave three bad samples, however many requests met them."""
    slots = [(0.0, 5)] * 400
    for number in range(stalls):
        at = 20 + number * 45
        slots[at : at + length] = [(5.0, 5)] * length
    found = dependence(slots, 0.05)
    bad, _ = found.effective(stalls * length * 5, 2000, 0.96)
    assert bad <= stalls * (1.1 if length > 10 else 1.3)  # short ones are seen in the blocks alone
    assert found.stalls == pytest.approx((length * 0.05,) * stalls)


def test_failures_that_come_and_go_are_seen_without_a_single_bad_slot() -> None:
    """Failures of one in five, in half of the time, count as dependent."""
    rng = random.Random(2)
    bad = [rng.random() < (0.2 if (at // 400) % 2 else 0.0) for at in range(4000)]
    found = dependence(slots_of(bad, 10), 0.05)
    assert found.effect > 10
    assert not found.stalls


def test_nothing_bad_and_nothing_good_say_nothing_of_dependence() -> None:
    """They count in full, and the pass says what that leaves open."""
    for bad in (0.0, 4.0):
        found = dependence([(bad, 4)] * 200, 0.05)
        assert found.effective(bad * 200, 800, 0.96) == (bad * 200, 800)
        assert not found.stalls
    assert dependence([], 0.05) == Dependence()


def test_empty_slots_neither_end_a_stall_nor_make_it_longer() -> None:
    """A closed load model sends few requests while the target stands still."""
    slots = [(0.0, 3)] * 100 + [(3.0, 3), (0.0, 0), (0.0, 0), (3.0, 3), (3.0, 3)] + [(0.0, 3)] * 100
    assert dependence(slots, 1.0).stalls == (3.0,)


def test_a_mean_has_the_design_effect_of_its_values() -> None:
    """Values that drift are worth fewer than values that are independent."""
    rng = random.Random(4)
    jumping = [rng.gauss(100, 10) for _ in range(400)]
    wandering = [100 + 10 * (-1) ** (at // 50) for at in range(400)]
    effects = []
    for values in (jumping, wandering):
        sums = [(value, 1) for value in values]
        effects.append(dependence([(0.0, 1)] * 400, 0.05, sums, statistics.variance(values)).effect)
    assert effects[0] < 2
    assert effects[1] > 10
    assert spread([(1.0, 1)] * 9, 0.0) == 1.0
