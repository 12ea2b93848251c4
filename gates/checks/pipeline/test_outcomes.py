"""One check for each way that a check can end. They look at nothing; `gates.stages.pipeline` knows what is due."""

import pytest

from gates.checks.pipeline.assertion import hold
from gates.checks.recorder import Observer, check


@check("pipeline/passes")
def test_passes(seen: Observer) -> None:
    """A check that saw its control and something else passes."""
    seen.control("the control")
    seen.count()


@check("pipeline/fails")
def test_fails(seen: Observer) -> None:
    """A check whose claim does not hold fails, also where it is asserted outside the test's module."""
    seen.control("the control")
    seen.count()
    hold(False)


@check("pipeline/sees-nothing")
def test_sees_nothing(seen: Observer) -> None:
    """A check that observed nothing is unknown."""
    seen.control("the control")


@check("pipeline/without-control")
def test_without_control(seen: Observer) -> None:
    """A check without a positive control is unknown."""
    seen.count()


@check("pipeline/breaks")
def test_breaks(seen: Observer) -> None:
    """A check that breaks off is unknown."""
    seen.control("the control")
    seen.count()
    raise RuntimeError("it must break")


@check("pipeline/is-skipped")
def test_is_skipped(seen: Observer) -> None:
    """A check that is skipped is unknown."""
    seen.control("the control")
    seen.count()
    pytest.skip("it must be skipped")
