"""Kills at random moments of each command: it leaves one of two states, and the dead session blocks nobody."""

import random
import signal
import time
from dataclasses import dataclass

from gates.proof.hostile import acts
from gates.proof.hostile.acts import Act
from gates.proof.hostile.partitions import AT_ONCE, Hand, through
from gates.proof.hostile.residue import Residue
from gates.proof.hostile.statements import Strike
from gates.proof.workbench import programs
from gates.proof.workbench.lanes import side_by_side

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
KILLS = 50
"""The kills of each command; with those of the drills there are 200."""
EACH_LATER_S = 0.06
"""The delay of every answer: a command then spends most of its time in the middle of its statements."""
LONGEST_S = 1.6
"""The duration of a command on two idle cores, with what EACH_LATER_S adds."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: which signal, how long after the start."""

    number: signal.Signals
    after_s: float


def kills(seed: int, count: int = KILLS) -> list[Kill]:
    """The moments, from one seed."""
    chance = random.Random(seed)  # noqa: S311  -- reproducible
    return [Kill(chance.choice(SIGNALS), chance.uniform(0.0, LONGEST_S)) for _ in range(count)]


def kill_act(hand: Hand, act: Act, seed: int, count: int = KILLS) -> list[str]:
    """What was wrong after any of the kills."""
    with side_by_side(AT_ONCE) as pool:
        found = list(pool.map(lambda one: _kill(hand, act, one), kills(seed, count)))
    return [line for wrong in found for line in wrong]


def _kill(hand: Hand, act: Act, one: Kill) -> list[str]:
    strike = Strike(each_later_s=EACH_LATER_S)
    with hand.copies.fresh() as copy:
        before = acts.look(copy)
        with through(copy.gate_url, strike) as url, Residue() as residue:
            process = programs.start(act.words, {**residue.marked(hand.environ), "DATABASE_URL": url})
            time.sleep(one.after_s)
            process.send_signal(one.number)
            _, wrong = programs.last_words(process, programs.GRACE_S)
            where = len(strike.seen)
            found = [*wrong, *residue.left()]
        after = acts.look(copy)
        found += acts.torn(before, after)
        found += hand.rescue(copy)
    return [f"{one.number.name} after {one.after_s:.2f} s, {where} statements: {line}" for line in found]
