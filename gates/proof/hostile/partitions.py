"""Networks that break at each statement of each command: afterwards flag, audit rows, locks and exit code agree."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from gates.errors import CannotWork
from gates.proof.hostile import acts
from gates.proof.hostile.acts import ACTS, ROLLBACK, Act
from gates.proof.hostile.copies import Copies, Copy
from gates.proof.hostile.statements import SAID, Blow, Strike
from gates.proof.workbench.lanes import side_by_side
from gates.proof.workbench.relay import RelayOptions, relay
from gates.text.quantity import with_unit

AT_ONCE = 6
RESCUE_TIMEOUT_S = 30.0
"""How soon after a lost promoter another rollback has switched the flag off."""
LET_GO_S = 60.0
"""The longest time that a lost gate holds its locks."""
POLL_S = 0.2


@contextmanager
def through(url: str, strike: Strike) -> Iterator[str]:
    """The database at `url`, behind a relay that strikes."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")
    with relay(f"tcp://{place[2]}", RelayOptions(tap=strike.tap)) as base:
        yield parts._replace(netloc=f"{place[0]}@{urlsplit(base).netloc}").geturl()


@dataclass(frozen=True, slots=True)
class Partition:
    """One way to break the network during a command; `stays`: every later connection is broken, too."""

    act: Act
    blow: Blow
    stays: bool = False

    @property
    def name(self) -> str:
        return f"partition-{self.act.name}-{self.blow}{'-for-good' if self.stays else ''}"

    @property
    def said(self) -> str:
        after = "; every later connection, too" if self.stays else ""
        return f"`gate {self.act.name}`, at each of its statements: {SAID[self.blow]}{after}"


PARTITIONS = (
    *(Partition(act, blow) for act in ACTS for blow in SAID),
    *(Partition(act, Blow.SILENCE, stays=True) for act in ACTS),
)


@dataclass(frozen=True, slots=True)
class Hand:
    """Attacks on the operator's commands, each on a copy of the database. environ: of a gate, without DATABASE_URL.
    every: one in so many statements of a command is struck, and always the last.
    """

    copies: Copies
    environ: Mapping[str, str]
    every: int = 1

    def statements(self, act: Act) -> list[str]:
        """The statements of the command in order. Raise CannotWork if it fails without an attack."""
        strike = Strike()
        with self.copies.fresh() as copy, through(copy.gate_url, strike) as url:
            before = acts.look(copy)
            done = act.run(self.environ, url)
            wrong = acts.complaints(act, before, acts.look(copy), done)
        if wrong or done.code != 0:
            raise CannotWork(
                f"`gate {act.name}` fails on a network in order: exit code {done.code}, {wrong}, {done.err}"
            )
        return strike.seen

    def partition(self, one: Partition) -> list[str]:
        """Strike at the statements. Returns what was wrong, one line each."""
        seen = self.statements(one.act)
        numbers = range(len(seen) - 1, -1, -self.every)
        with side_by_side(AT_ONCE) as pool:
            found = list(pool.map(lambda n: self._partition(one, Strike(one.blow, n, one.stays)), numbers))
        return [
            f"at statement {n + 1} ({seen[n][:60]}): {line}"
            for n, wrong in zip(numbers, found, strict=True)
            for line in wrong
        ]

    def _partition(self, one: Partition, strike: Strike) -> list[str]:
        with self.copies.fresh() as copy:
            before = acts.look(copy)
            with through(copy.gate_url, strike) as url:
                done = one.act.run(self.environ, url)
                after = acts.look(copy)
                found = acts.complaints(one.act, before, after, done, in_the_dark=one.stays)
                found += self.rescue(copy)
                found += _lets_go(copy)
            return found

    def rescue(self, copy: Copy) -> list[str]:
        """A rollback from elsewhere succeeds, whatever a lost gate still holds."""
        before = acts.look(copy)
        done = ROLLBACK.run(self.environ, copy.gate_url, RESCUE_TIMEOUT_S)
        after = acts.look(copy)
        return [f"the rollback after it: {line}" for line in acts.complaints(ROLLBACK, before, after, done)] + (
            [f"the rollback after it left {with_unit(after.rows_on, 'rows')} on"] if after.rows_on else []
        )


def _lets_go(copy: Copy) -> list[str]:
    deadline = time.monotonic() + LET_GO_S
    while (count := acts.held_sessions(copy)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return [f"{with_unit(count, 'sessions')} of a lost gate, holding a lock after {LET_GO_S:.0f} s"] if count else []
