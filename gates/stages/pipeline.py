"""Whether the gate tells red from green: in every run, checks with known outcomes pass through its pipeline."""

import dataclasses
import time
from collections.abc import Mapping

from gates import disk
from gates.evidence import CheckSpec, Evidence, Outcome, Severity, Where, stamp
from gates.stages.context import Context, StageReport, now, silent
from gates.stages.suite import SuiteRun, run

FOLDER = "gates/checks/pipeline"
TIMEOUT_S = 60.0
SPEC = CheckSpec(
    "preflight/pipeline",
    "Checks that must fail, pass or stay unknown come out so, through the same recorder and file as all others.",
    "A pipeline that lost its failures shows every release as good.",
    Severity.WARN,
    Where.READ_ONLY,
    covers=("Q02",),
    phase="first",
)
DUE: Mapping[str, Outcome] = {
    "pipeline/passes": Outcome.PASS,
    "pipeline/fails": Outcome.FAIL,
    "pipeline/sees-nothing": Outcome.UNKNOWN,
    "pipeline/without-control": Outcome.UNKNOWN,
    "pipeline/breaks": Outcome.UNKNOWN,
    "pipeline/is-skipped": Outcome.UNKNOWN,
}


def pipeline(context: Context) -> list[StageReport]:
    """Run the known checks into their own evidence file, and write one line about them into the run's."""
    if not context.has(SPEC):
        return []
    started, at = time.monotonic(), stamp(now())
    nobody = dataclasses.replace(context.target, base_url="", database_url="")  # it looks at no target
    inner = dataclasses.replace(context, target=nobody, out=context.out / "pipeline", catalogue=(), progress=silent)
    disk.folder(inner.out)
    inner.evidence.unlink(missing_ok=True)
    report = run(SuiteRun("pipeline", FOLDER, (), TIMEOUT_S), inner)
    line = judge(inner.lines(), report.error)
    took_ms = round((time.monotonic() - started) * 1000, 1)
    context.note(dataclasses.replace(line, started_at=at, duration_ms=took_ms))
    return [dataclasses.replace(report, stage="pipeline")]


def judge(lines: list[Evidence], error: str) -> Evidence:
    """The evidence about the pipeline, from the outcomes of the known checks. Pure. Unknown if there is no line, or if
    one is missing because the process was ended before it could write it (`error`).
    """
    found = {e.check: e.outcome for e in lines}
    wrong = [f"{c} is {found.get(c, 'absent')} where {due} is due" for c, due in DUE.items() if found.get(c) is not due]
    wrong += [f"{c} is {found[c]}, and no such check was planted" for c in sorted(set(found) - set(DUE))]
    if not lines or (error and all(DUE.get(check) is outcome for check, outcome in found.items())):
        reason = error or "the known checks left no evidence"
        return Evidence(SPEC.id, Outcome.UNKNOWN, f"the pipeline was not seen to work: {reason}; see pipeline/logs")
    if wrong:
        message = f"{'; '.join(wrong)}. Nothing that this gate says counts: install it anew"
        return Evidence(SPEC.id, Outcome.FAIL, message, len(wrong), 0, "outcomes", len(lines))
    return Evidence(SPEC.id, Outcome.PASS, "", 0, 0, "wrong outcomes", len(lines))
