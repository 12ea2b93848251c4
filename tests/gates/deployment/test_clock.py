"""Credentials are made by the target's clock, whatever the gate's clock shows."""

import time
from email.utils import formatdate

import pytest

from gates.deployment.dialect.signature import SignatureForm, timed_by
from gates.deployment.http.client import HttpDoor, NoAnswer
from gates.deployment.http.clock import Clock
from gates.deployment.requests import Answer, Request

NOW = 1_800_000_000.0


class World(HttpDoor):
    """A target, the gate's clock and real time, in seconds."""

    def __init__(self, *, dated: bool = True) -> None:
        super().__init__("http://unset.invalid")
        self.passed_s = self.set_s = 0.0
        self.dated, self.down, self.asked, self.cached_s = dated, False, 0, 0

    def send(self, request: Request, *, timeout_s: float | None = None) -> Answer:  # noqa: ARG002
        self.asked += 1
        if self.down:
            raise NoAnswer("it is down")
        date = formatdate(NOW + self.passed_s - self.cached_s, usegmt=True)
        age = (("age", str(self.cached_s)),) if self.cached_s else ()
        return Answer(200, (("date", date), *age) if self.dated else (), b"", 1.0)

    def clock(self) -> Clock:
        return Clock(self, lambda: NOW + self.passed_s + self.set_s, lambda: self.passed_s)


@pytest.mark.parametrize("set_s", [0.0, 3600.0, -3600.0])
def test_a_clock_that_is_wrong_from_the_start_is_seen(set_s: float) -> None:
    """The target's Date header corrects it to a second, whichever way it is wrong."""
    world = World()
    world.set_s = set_s
    clock = world.clock()
    world.passed_s = 100.0
    assert abs(clock.now() - (NOW + 100)) <= 1
    assert world.asked == 1


@pytest.mark.parametrize("set_s", [3600.0, -7200.0, 31.0])
def test_a_clock_that_is_set_during_the_run_is_seen(set_s: float) -> None:
    """Otherwise a healthy target would refuse the signature, which would look like harm."""
    world = World()
    clock = world.clock()
    world.passed_s, world.set_s = 50.0, set_s
    assert abs(clock.now() - (NOW + 50)) <= 1
    assert world.asked == 2


def test_an_answer_of_a_cache_is_as_old_as_it_says() -> None:
    """A cache in front of a healthy target keeps its Date header; credentials of that time would be stale."""
    world = World()
    world.cached_s = 290
    assert abs(world.clock().now() - NOW) <= 1


def test_a_machine_that_slept_keeps_its_clock() -> None:
    """The monotonic clock may stop during sleep, so the target's time counts."""
    world = World()
    clock = world.clock()
    clock.steady = lambda: 0.0
    world.passed_s = 7200.0
    assert abs(clock.now() - (NOW + 7200)) <= 1


@pytest.mark.parametrize("why", ["undated", "down"])
def test_a_target_that_does_not_say_its_time_has_ours(why: str) -> None:
    """Such a target is asked once, not before each signature."""
    world = World(dated=why != "undated")
    world.down, world.set_s = why == "down", 5.0
    clock = world.clock()
    assert [clock.now(), clock.now()] == [NOW + 5] * 2
    assert world.asked == 1


def test_a_form_that_always_has_a_time_has_the_target_s() -> None:
    """Where every signature has a time, it is the target's, so a wrong clock locks no gate out."""
    form = SignatureForm({"v2": "t={t},v1={hex}"})
    world = World()
    world.set_s = 3600.0
    timed_by(world.clock().now)
    try:
        assert form.value("secret", "POST", "/x", b"{}", None) == form.value("secret", "POST", "/x", b"{}", int(NOW))
    finally:
        timed_by(time.time)
    assert f"t={int(time.time())}"[:8] in form.value("secret", "POST", "/x", b"{}", None)
