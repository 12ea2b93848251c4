"""Time in which the gate itself stood still is not held against the target."""

import pytest

from gates.checks import observation
from gates.checks.observation import Observer, Unmet
from gates.deployment.standstill import EVERY_S, Standstill
from gates.deployment.target import Target
from gates.evidence import TargetKind


class Clock:
    """A clock that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_was_late_was_lost(clock: Clock) -> None:
    """Only the lateness of a wake-up counts as lost."""
    meter = Standstill(clock)
    for step_s in (EVERY_S, EVERY_S, EVERY_S + 0.5, EVERY_S):
        clock.now += step_s
        meter.wake()
    assert meter.lost_s(100.0) == pytest.approx(0.5)
    assert meter.lost_s(clock.now - EVERY_S) == 0.0


def test_a_standstill_that_lasts_counts_and_one_that_began_before_counts_in_part(clock: Clock) -> None:
    """A standstill that has not ended counts; of one that began earlier, only the part since the question."""
    meter = Standstill(clock)
    clock.now += 3.0
    assert meter.lost_s(100.0) == pytest.approx(3.0 - EVERY_S)
    meter.wake()
    assert meter.lost_s(102.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("taken_ms", "lost_s", "outcome"),
    [
        ([900.0, 2500.0], 0.0, "pass"),
        ([900.0], 5.0, "pass"),  # standing still only adds
        ([2500.0, 2600.0], 0.1, "fail"),
        ([2500.0, 2600.0], 0.6, "unknown"),
        ([9000.0], 0.6, "fail"),
    ],
)
def test_a_time_fails_only_beyond_what_was_lost(
    taken_ms: list[float], lost_s: float, outcome: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time fails only if it exceeds the limit by more than the gate stood still."""
    meter = Standstill(clock)
    clock.now += EVERY_S + lost_s
    meter.wake()
    monkeypatch.setattr(observation, "own_standstill", lambda: meter)
    seen = Observer(Target(TargetKind.STAGING))
    match outcome:
        case "pass":
            seen.quick("done", taken_ms, 2000.0, 100.0)
        case "fail":
            with pytest.raises(AssertionError, match="allowed: 2000 ms"):
                seen.quick("done", taken_ms, 2000.0, 100.0)
        case _:
            with pytest.raises(Unmet, match="stood still for 600 ms"):
                seen.quick("done", taken_ms, 2000.0, 100.0)
    assert (seen.observed, seen.limit, seen.unit) == (min(taken_ms), 2000.0, "ms")
