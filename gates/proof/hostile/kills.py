"""Kills at random moments of each command: it leaves one of two states, and the dead session blocks nobody."""

import random
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gates.deployment.tenants.leftovers import sweep
from gates.deployment.tenants.loans import give_back_for_the_dead
from gates.evidence import TargetKind
from gates.proof.hostile import acts
from gates.proof.hostile.acts import Act
from gates.proof.hostile.partitions import AT_ONCE, Hand, through
from gates.proof.hostile.residue import Residue
from gates.proof.hostile.statements import Strike
from gates.proof.workbench import programs
from gates.proof.workbench.bench import ProofBench
from gates.proof.workbench.lanes import side_by_side
from gates.stack.postgres import connect

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
KILLS = 50
"""The kills of each command; with those of the drills there are 200."""
EACH_LATER_S = 0.06
"""The delay of every answer: a command then spends most of its time in the middle of its statements."""
LONGEST_S = 1.6
"""The duration of a command on two idle cores, with what EACH_LATER_S adds."""
DRILL_KILLS = 50
EARLIEST_S, LATEST_S = 1.0, 12.0
"""Before the first second a drill has done nothing; by the last they are over, on two idle cores."""
ROWS = """select f.key, f.company_id::text, f.enabled, f.rollout_percentage from public.feature_flags f
 union all select 'pause', a.company_id::text, a.agents_paused, 0 from public.agent_controls a"""
COMPANIES = "select id::text from public.companies"


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


@dataclass(frozen=True, slots=True)
class LiveRows:
    """The rows that everybody uses, the recorded loans, and the companies."""

    rows: frozenset[tuple[object, ...]]
    loans: int
    companies: frozenset[str]


def live_rows(url: str, first: LiveRows | None = None) -> LiveRows:
    """Those rows now. first: the state before; rows of new companies are their drill's own."""
    with connect(url) as connection:
        found = connection.execute(ROWS.encode()).fetchall()
        companies = frozenset(str(row[0]) for row in connection.execute(COMPANIES.encode()).fetchall())
    records = [row for row in found if str(row[0]).startswith("replaygate")]
    new = companies - (first or LiveRows(frozenset(), 0, companies)).companies
    rows = frozenset(tuple(row) for row in found if row not in records and row[1] not in new)
    return LiveRows(rows, len(records), companies)


def kill_drills(bench: ProofBench, out: Path, seed: int) -> list[str]:
    """What was wrong after any of the kills."""
    chance = random.Random(seed)  # noqa: S311  -- reproducible
    url = bench.stack.info.database_url
    first = live_rows(url)
    found: list[str] = []
    for number in range(DRILL_KILLS):
        which, after_s = chance.choice(SIGNALS), chance.uniform(EARLIEST_S, LATEST_S)
        wrong = _kill_drill(bench, out, which, after_s)
        left = live_rows(url, first)
        if left.rows != first.rows and not left.loans:
            wrong.append(f"rows are changed, and no loan is on record: {sorted(map(str, left.rows ^ first.rows))[:4]}")
        give_back_for_the_dead(url)
        sweep(url, bench.stack.info.company_id)
        back = live_rows(url)
        if back.rows != first.rows or back.loans:
            wrong.append(f"the next gate did not put back: {sorted(map(str, back.rows ^ first.rows))[:4]}")
        if back.companies != first.companies:
            wrong.append(f"{len(back.companies ^ first.companies)} companies are left, or gone")
        found += [f"kill {number}, {which.name} after {after_s:.1f} s: {line}" for line in wrong]
    return found


def _kill_drill(bench: ProofBench, out: Path, which: signal.Signals, after_s: float) -> list[str]:
    words = (sys.executable, "-m", "gates.proof.hostile.short", "drill", "--output", str(out))
    with Residue() as residue:
        process = programs.start(words, residue.marked(bench.variables(TargetKind.REFERENCE)))
        deadline = time.monotonic() + after_s
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        with suppress(ProcessLookupError):
            process.send_signal(which)
        _, wrong = programs.last_words(process, programs.GRACE_S * 2)
        return [*wrong, *residue.left()]
