"""Turns: a phase waits for the one before it, the last runs alone, and nobody waits for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import cast

import pytest

from drills.workbench import turns
from drills.workbench.turns import LAST, SQL, Turns
from gates.evidence import CheckSpec, Severity, Where
from tests.waiting import until

MAIN = 2


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=4) as made:
        yield made


def _one(shared: Turns, number: int, order: list[int], hold: Event | None = None) -> None:
    with shared.turn(number):
        order.append(number)
        if hold:
            assert hold.wait(10)


def test_a_phase_waits_for_the_one_before_it(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """Checks of a later phase begin when all of the earlier ones have ended, whatever order they came in."""
    shared, order, hold = Turns(tmp_path, Counter({SQL: 1, MAIN: 2, LAST: 1})), list[int](), Event()
    last = pool.submit(_one, shared, LAST, order)
    held = pool.submit(_one, shared, SQL, order, hold)
    later = [pool.submit(_one, shared, MAIN, order) for _ in range(2)]
    until(lambda: order)
    assert order == [SQL]
    hold.set()
    for done in (held, *later, last):
        done.result(timeout=10)
    assert order == [SQL, MAIN, MAIN, LAST]


def test_only_the_last_is_alone(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """Two checks of the main phase run at once; two of the last never do."""
    shared = Turns(tmp_path, Counter({MAIN: 2, LAST: 2}))
    with ExitStack() as both:
        both.enter_context(shared.turn(MAIN))
        pool.submit(_one, shared, MAIN, []).result(timeout=10)
    hold, order = Event(), list[int]()
    first, second = pool.submit(_one, shared, LAST, order, hold), pool.submit(_one, shared, LAST, order, hold)
    until(lambda: order)
    assert len(order) == 1
    hold.set()
    first.result(timeout=10)
    second.result(timeout=10)


class Item:
    """What the order sees of a pytest item."""

    def __init__(self, name: str, phase: str = "main", wait_s: float = 0.0) -> None:
        self.name = name
        spec = CheckSpec(f"drill/{name}", "c", "c", Severity.PAGE, Where.SELF_CLEANING, phase=phase)
        self._marks = {"check": SimpleNamespace(args=(spec,))}
        if wait_s:
            self._marks["waits"] = SimpleNamespace(args=(wait_s,))

    def get_closest_marker(self, name: str) -> SimpleNamespace | None:
        return self._marks.get(name)


def test_those_that_wait_come_first_and_long_ones_apart() -> None:
    """By phase; two long waits never follow each other: xdist gives a worker the next one before this one ends."""
    work = [Item(f"work-{n}") for n in range(2 * turns.APART + 5)]
    waits = [Item("long-1", wait_s=4), Item("short", wait_s=0.5), Item("long-2", wait_s=4)]
    items = [Item("last", "last"), *work, *waits, Item("first", "first")]
    names = [item.name for item in cast("list[Item]", turns.in_order(cast("list[pytest.Item]", items)))]
    assert sorted(names) == sorted(item.name for item in items)
    assert names[:3] == ["first", "short", "long-1"]
    assert names[3 + turns.APART] == "long-2"
    assert names[-1] == "last"
    assert [n for n in names if n.startswith("work")] == [item.name for item in work]


def test_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing runs any more, a check goes on although the phase before it is not complete."""
    monkeypatch.setattr(turns, "IDLE_S", 0.05)
    order: list[int] = []
    _one(Turns(tmp_path, Counter({SQL: 5, MAIN: 1})), MAIN, order)
    assert order == [MAIN]
