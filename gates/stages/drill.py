"""The drill stage: sentinels first, then everything in parallel, then what touches global state, alone."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

import psycopg

from gates.deployment.leftovers import remove_left
from gates.evidence import CheckSpec, Outcome
from gates.evidence_file import read_lines
from gates.stages.context import Context, StageReport
from gates.stages.preflight.endpoints import REACHABLE
from gates.stages.suite import SuiteRun, run
from gates.stages.switches import give_back_after_drills

PREFIX = ("drill/",)
MOST_WORKERS = 8
WORTH_A_WORKER = 10
"""Drills for which the start of one more process pays."""
SLOW_MS = 50.0
"""For each so many milliseconds of the first answer, one worker more: drills of a slow target mostly wait."""


def drill(context: Context, selection: Sequence[str] = ()) -> list[StageReport]:
    """Run the drills of this target, or those that the options of `selection` leave.

    Phases without a check are left out; the stage's time is for all of them.
    """
    reports = []
    left_s = float(context.settings.drill_timeout_s)
    try:
        for phase in ("first", "main", "last"):
            if expected := context.applicable(PREFIX, phase):
                reports.append(_phase(context, phase, expected, selection, left_s))
                left_s -= reports[-1].seconds
    finally:
        give_back_after_drills(context)
        _remove_left(context)
    return reports


def _remove_left(context: Context) -> None:
    """The companies of drills that were ended. Where the database refuses, the next gate removes them."""
    companies = context.companies.read_text(encoding="utf-8").split() if context.companies.exists() else []
    if companies and context.target.database_url:
        with contextlib.suppress(psycopg.Error):
            remove_left(context.target.database_url, companies)


def _phase(
    context: Context, phase: str, expected: Sequence[CheckSpec], selection: Sequence[str], left_s: float
) -> StageReport:
    # no --dist: what checks share they share by files, not by worker; handed out one by one, since some wait long
    workers = min(workers_for(context), math.ceil(len(expected) / WORTH_A_WORKER))
    spread = ("-n", str(workers), "--maxschedchunk=1") if phase == "main" and workers > 1 else ()
    only = [f"--only={pattern}" for pattern in context.only]
    options = (f"--phase={phase}", f"--companies={context.companies}", *spread, *only, *selection)
    limit_s = context.settings.drill_timeout_s
    return run(SuiteRun(f"drill {phase}", "drills", expected, max(left_s, 1.0), options, limit_s), context)


def workers_for(context: Context) -> int:
    """How many drills run at once: what the policy says, and more where the target was seen to answer slowly.

    A target at a distance is no worse for it, and would never be seen whole within the time of the stage.
    """
    reached = [e for e in read_lines(context.evidence) if e.check == REACHABLE.id and e.outcome is Outcome.PASS]
    policy = context.settings.drill_workers
    slowness = int(reached[-1].duration_ms // SLOW_MS) if reached else 0
    return max(policy, min(MOST_WORKERS, policy + slowness))
