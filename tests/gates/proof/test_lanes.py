"""Lanes side by side: what an interrupt does to them."""

import os
import sys
import threading
import time

import pytest

from gates.proof.workbench import programs
from gates.proof.workbench.lanes import side_by_side
from gates.proof.workbench.servant import Servant
from gates.stack.stack import Cancelled

WAITS = (sys.executable, "-c", "import time; print('{}', flush=True); time.sleep(300)")
DEAF = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('{}', flush=True); time.sleep(300)",
)
FAR_S = 60.0


@pytest.mark.parametrize("words", [WAITS, DEAF], ids=["it obeys", "it is deaf"])
def test_an_interrupt_ends_what_the_lanes_run(words: tuple[str, ...]) -> None:
    """All lanes end at once, start nothing more, and take no killed program's end for a result."""
    running, seen = threading.Barrier(3), list[str]()

    def lane(number: int) -> None:
        servant = Servant(words, os.environ)
        try:
            servant.ask({}, FAR_S)
            running.wait(FAR_S)
            if number:
                programs.run(words, os.environ, FAR_S)
            else:
                servant.ask({}, FAR_S)
        except Cancelled:
            seen.append("cancelled")
            with pytest.raises(Cancelled):
                programs.start(words, os.environ)
        finally:
            servant.close()

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), side_by_side(2) as pool:
        made = [pool.submit(lane, n) for n in range(2)]
        late = [pool.submit(lane, n) for n in range(2)]
        running.wait(FAR_S)
        raise KeyboardInterrupt
    assert seen == ["cancelled"] * 2
    assert not any(one.exception() for one in made)
    assert all(one.cancelled() for one in late)
    assert time.monotonic() - started < FAR_S / 2
    assert programs.run((sys.executable, "-c", ""), os.environ, FAR_S).code == 0


def test_an_error_of_one_lane_leaves_the_others_their_programs() -> None:
    """An error in one lane does not end the programs of the others."""
    words = (sys.executable, "-c", "print(1)")

    def fail() -> None:
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"), side_by_side(2) as pool:
        other = pool.submit(programs.run, words, os.environ, FAR_S)
        pool.submit(fail).result()
    assert other.result().code == 0


def test_lanes_within_a_lane_start_nothing_once_the_outer_ones_were_interrupted() -> None:
    """The inner lanes end first; the interrupt stays in force until the outer ones have ended."""
    running, over = threading.Barrier(2), threading.Event()
    started: list[bool] = []

    def inner() -> None:
        with side_by_side(1) as pool:
            running.wait(FAR_S)
            pool.submit(programs.run, WAITS, os.environ, FAR_S).result()

    def late() -> None:
        over.wait(FAR_S)
        started.append(not programs.is_called_off())

    with pytest.raises(KeyboardInterrupt), side_by_side(2) as pool:
        pool.submit(inner).add_done_callback(lambda _: over.set())
        pool.submit(late)
        running.wait(FAR_S)
        raise KeyboardInterrupt
    assert started == [False]
    assert not programs.is_called_off()
