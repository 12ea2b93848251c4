"""Many gates at once, or a person beside one: only one step is taken, and the person's change stays."""

from collections import Counter
from dataclasses import dataclass

import psycopg

from gates.proof.hostile import acts
from gates.proof.hostile.acts import FLAG, PROMOTE, REASON, ROLLBACK, STEP, Act
from gates.proof.hostile.copies import Copy
from gates.proof.hostile.partitions import AT_ONCE, Hand, through
from gates.proof.hostile.statements import Blow, Strike
from gates.proof.workbench import programs
from gates.proof.workbench.lanes import side_by_side
from gates.stack.postgres import connect

GATES = 20
CROWD_TIMEOUT_S = 120.0
HELD_TIMEOUT_S = 30.0


def one_step(hand: Hand) -> list[str]:
    """Twenty gates, each with another release, promote at the same moment."""
    with hand.copies.fresh() as copy:
        environ = {**hand.environ, "DATABASE_URL": copy.gate_url}
        lines = [
            (*programs.gate(("promote", "--json", "--reason", REASON)), "--release", f"r{n}") for n in range(GATES)
        ]
        with side_by_side(GATES) as pool:
            done = list(pool.map(lambda words: programs.run(words, environ, CROWD_TIMEOUT_S), lines))
        after = acts.look(copy)
    said = Counter(acts.result_of(one) or f"exit code {one.code}" for one in done)
    found = [line for one in done for line in acts.crashes(one)]
    if (after.percent, after.promoted, said["done"]) != (STEP[1], 1, 1):
        found.append(f"the flag is at {after.percent} % by {after.promoted} audited steps; the gates say {dict(said)}")
    return found


@dataclass(frozen=True, slots=True)
class ManualChange:
    """What a person does to the flag or the pause while a gate acts."""

    name: str
    said: str
    statement: str


CHANGES = (
    ManualChange(
        "flag-off", "switches the flag off", f"update public.feature_flags set enabled = false where key = '{FLAG}'"
    ),
    ManualChange(
        "flag-moved",
        "moves the flag to 30 %",
        f"update public.feature_flags set rollout_percentage = 30 where key = '{FLAG}'",
    ),
    ManualChange(
        "pause-set",
        "pauses the agents",
        "update public.agent_controls set agents_paused = true where company_id is null",
    ),
    ManualChange(
        "pause-lifted",
        "pauses the agents and lifts the pause",
        "update public.agent_controls set agents_paused = true where company_id is null; "
        "update public.agent_controls set agents_paused = false where company_id is null",
    ),
)
PEOPLE = tuple((act, change) for act in (PROMOTE, ROLLBACK) for change in CHANGES)


def person(hand: Hand, act: Act, change: ManualChange) -> list[str]:
    """A person's change before each statement of the command."""
    seen = hand.statements(act)
    with side_by_side(AT_ONCE) as pool:
        found = list(pool.map(lambda number: _person(hand, act, change, number), range(len(seen))))
    return [f"before statement {n + 1} ({seen[n][:60]}): {line}" for n, wrong in enumerate(found) for line in wrong]


def _person(hand: Hand, act: Act, change: ManualChange, number: int) -> list[str]:
    strike = Strike(Blow.HOLD, number)
    with hand.copies.fresh() as copy, through(copy.gate_url, strike) as url, side_by_side(1) as pool:
        before = acts.look(copy)
        running = pool.submit(act.run, hand.environ, url)
        try:
            if not strike.struck.wait(HELD_TIMEOUT_S):
                return [f"it did not come so far: {running.result()}"]
            blocked = _do(copy, change)
        finally:
            strike.go_on.set()
        done = running.result()
        after = acts.look(copy)
    found = acts.crashes(done)
    if blocked:  # the gate had locked the row already: the person's change comes after it
        return found
    if change.name == "flag-off" and after.rows_on:
        found.append("the person switched it off, and it is on")
    if change.name == "flag-moved" and act is PROMOTE and after.percent not in {"30", "50"}:
        found.append(f"the person moved it to 30 %, and it is at {after.percent} %")
    if change.name == "pause-set" and not after.paused:
        found.append("the person paused the agents, and they are not paused")
    if change.name == "pause-lifted" and after.paused != before.paused:
        found.append("the person lifted the pause, and they are paused")
    if act is ROLLBACK and after.rows_on:
        found.append(f"the rollback left {after.rows_on} rows on: exit code {done.code}")
    return found


def _do(copy: Copy, change: ManualChange) -> bool:
    """Make the change. True if it was blocked, because the gate's transaction held the lock."""
    with connect(copy.superuser_url) as connection:
        connection.execute("set lock_timeout = '500ms'")
        try:
            connection.execute(change.statement.encode())
        except psycopg.errors.LockNotAvailable:
            return True
    return False
