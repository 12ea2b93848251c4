"""The order and the places in which xdist runs these tests, shown with workers that only note what they are given."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from tests.schedule import BESIDE_LOADS, LOADS, LONG, LoadsBesideFew, ordered


@dataclass(eq=False)
class Worker:
    """Runs what it was given, but for the last test, as xdist's: that waits for more or for the end."""

    scheduler: LoadsBesideFew
    given: list[int] = field(default_factory=list)
    ran: list[int] = field(default_factory=list)
    shutting_down: bool = False
    gateway: Any = field(default_factory=lambda: SimpleNamespace(id="gw"))

    def send_runtest_some(self, numbers: list[int]) -> None:
        self.given += numbers

    def send_steal(self, numbers: list[int]) -> None:
        self.asked_for = numbers

    def shutdown(self) -> None:
        self.shutting_down = True

    def run_one(self) -> bool:
        """Run one test and give back what was asked for; whether anything was done."""
        if self.scheduler.steal_requested_from_node is self:
            back = [n for n in self.asked_for if n in self.given[1:]]
            self.given = [n for n in self.given if n not in back]
            self.scheduler.remove_pending_tests_from_node(self, back)
            return True
        if len(self.given) < (1 if self.shutting_down else 2):
            return False
        self.ran.append(self.given.pop(0))
        self.scheduler.mark_test_complete(self, self.ran[-1])
        return True


def workers(number: int, names: list[str]) -> list[Worker]:
    """Workers that have collected these tests and have been given their first."""
    config: Any = SimpleNamespace(getvalue=lambda _name: [f"{number}*popen"])
    scheduler = LoadsBesideFew(config)
    made = [Worker(scheduler) for _ in range(number)]
    for one in made:
        scheduler.add_node(one)
    for one in made:
        scheduler.add_node_collection(one, names)
    scheduler.schedule()
    return made


def collected(loads: int, others: int) -> list[str]:
    return [
        *(f"{LOADS}test_a.py::test_{n}" for n in range(loads)),
        *(f"tests/test_b.py::test_{n}" for n in range(others)),
    ]


def test_a_further_worker_begins_after_the_last_load() -> None:
    """Until then it has nothing, however fast the others are; then it has its share."""
    loads = 20
    *beside, further = workers(BESIDE_LOADS + 1, collected(loads, 600))
    while not set(range(loads)) <= {n for one in beside for n in one.ran}:
        assert (further.given, further.ran) == ([], [])
        assert sum(one.run_one() for one in beside)
    while sum(one.run_one() for one in (*beside, further)):
        pass
    assert len(further.ran) > 50


@pytest.mark.parametrize("number", [BESIDE_LOADS, BESIDE_LOADS + 2])
@pytest.mark.parametrize(("loads", "others"), [(5, 100), (40, 300)])
def test_what_is_long_is_begun_at_once(number: int, loads: int, others: int) -> None:
    """By the second worker, beside the loads; nothing is left out."""
    names = [*collected(loads, others), f"{LONG}::test_a", f"{LONG}::test_b"]
    given = ordered(names, str)
    assert sorted(given) == sorted(names)
    assert given[:loads] == names[:loads]
    _, second, *_ = workers(number, given)
    assert [given[n] for n in second.given[:2]] == names[-2:]


@pytest.mark.parametrize("number", [1, 2, BESIDE_LOADS, BESIDE_LOADS + 1, BESIDE_LOADS + 4])
@pytest.mark.parametrize(("loads", "others"), [(0, 50), (50, 0), (5, 50), (1, 1), (40, 3)])
def test_every_test_is_run_once_and_every_worker_ends(number: int, loads: int, others: int) -> None:
    """Whatever is selected: loads alone, none, fewer tests than workers."""
    made = workers(number, collected(loads, others))
    while sum(one.run_one() for one in made):
        pass
    assert sorted(n for one in made for n in one.ran) == list(range(loads + others))
    assert all(one.shutting_down for one in made)
