"""Kills while drills have set live flags and the pause: what is left is recorded, and the next gate restores it."""

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
from gates.proof.hostile.kills import SIGNALS
from gates.proof.hostile.residue import Residue
from gates.proof.workbench import programs
from gates.proof.workbench.bench import ProofBench
from gates.stack.postgres import connect

DRILL_KILLS = 50
EARLIEST_S, LONGEST_S = 1.0, 12.0
"""Before the first second a drill has done nothing; by the last they are over, on two idle cores."""
ROWS = """select f.key, f.company_id::text, f.enabled, f.rollout_percentage from public.feature_flags f
 union all select 'pause', a.company_id::text, a.agents_paused, 0 from public.agent_controls a"""
COMPANIES = "select id::text from public.companies"


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
        which, after_s = chance.choice(SIGNALS), chance.uniform(EARLIEST_S, LONGEST_S)
        wrong = _kill(bench, out, which, after_s)
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


def _kill(bench: ProofBench, out: Path, which: signal.Signals, after_s: float) -> list[str]:
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
