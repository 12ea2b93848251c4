"""Parallel threads. An interrupt ends the programs that they run, and they begin nothing more."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from gates.proof.workbench import programs

Item = TypeVar("Item")
Result = TypeVar("Result")
IsOver = Callable[[], bool]

JOIN_S = 30.0


@contextmanager
def side_by_side(count: int, name: str = "lane") -> Iterator[ThreadPoolExecutor]:
    """So many threads for a block.

    If a signal ends it, waiting work is dropped, and whoever asks for a program, or for a step of a deployment, gets
    Cancelled: each lane takes down what it started. That lasts until this block is over, not an inner one.
    """
    called_off = False
    try:
        with ThreadPoolExecutor(count, name) as pool:
            try:
                yield pool
            except Exception:
                raise
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                called_off = True
                programs.call_off()
                raise
    finally:
        if called_off:
            programs.go_on()


@contextmanager
def in_a_thread(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Work in a thread during a block, until the event is set."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=JOIN_S)


def share_out(
    count: int,
    items: Iterable[Item],
    over: IsOver,
    lane: Callable[[int, Iterator[Item], IsOver], Result],
    name: str = "lane",
) -> list[Result]:
    """The results of each lane for the items that it takes, one after another. It gets its number, the items, and
    whether to begin nothing more: because it is over, or because another lane failed.
    """
    waiting, ended = deque(items), threading.Event()

    def is_over() -> bool:
        return ended.is_set() or over()

    def taken() -> Iterator[Item]:
        while waiting and not is_over():
            try:
                one = waiting.popleft()
            except IndexError:  # another lane took the last one
                return
            yield one

    with side_by_side(count, name) as pool:
        lanes = [pool.submit(lane, n, taken(), is_over) for n in range(min(count, len(waiting)))]
        try:
            return [one.result() for one in lanes]
        finally:
            ended.set()
