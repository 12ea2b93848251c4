"""The drill stage: sentinels first, then everything in parallel, then what touches global state, alone."""

from __future__ import annotations

from collections.abc import Sequence

from gates.stages.context import Context, StageReport
from gates.stages.suite import Suite, run

PREFIX = ("drill/",)


def drill(context: Context, selection: Sequence[str] = ()) -> list[StageReport]:
    """Run the drills of this target, or those that the options of `selection` leave.

    Phases without a check are left out; the stage's time is for all of them.
    """
    reports = []
    left_s = float(context.settings.drill_timeout_s)
    for phase in ("first", "main", "last"):
        expected = context.applicable(PREFIX, phase)
        if not expected:
            continue
        # no --dist: a check takes a fraction of a second, and what checks share they share by files, not by worker
        workers = ("-n", str(context.settings.drill_workers)) if phase == "main" else ()
        options = (f"--phase={phase}", f"--companies={context.companies}", *workers, *selection)
        limit_s = context.settings.drill_timeout_s
        suite = Suite(f"drill {phase}", "drills", expected, max(left_s, 1.0), options, limit_s)
        reports.append(run(suite, context))
        left_s -= reports[-1].seconds
    return reports
