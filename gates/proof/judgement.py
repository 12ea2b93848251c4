"""Judges one cell of the matrix (fault by gate) from recorded facts alone. Pure.

There is only one way to `killed`: a clean run before and after, the fault seen to be on and then off, a declared check
that failed and names the faulty thing, and the declared decision.
"""

import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from gates.decision.causes import PREREQUISITES
from gates.proof.fault import ListedFault
from gates.verdict import Decision, Finding, Verdict


class Status(enum.StrEnum):
    """All but the first count as not killed. For a no-op `survived` is what is wanted."""

    KILLED = "killed"
    KILLED_COLLATERAL = "killed_collateral"
    MASKED = "masked"
    SURVIVED = "survived"
    NOT_INSTALLED = "not_installed"
    INVALID_BASELINE = "invalid_baseline"
    HARNESS_ERROR = "harness_error"


@dataclass(frozen=True, slots=True)
class GateRun:
    """One `gate run`: its verdict and its costs. `error` is set if the gate gave no verdict.

    costs: seconds and things observed, by check.
    """

    verdict: Verdict | None
    seconds: float = 0.0
    error: str = ""
    costs: tuple[tuple[str, float, int], ...] = ()

    @property
    def is_green(self) -> bool:
        return self.verdict is not None and self.verdict.decision is Decision.PROMOTE

    @property
    def said(self) -> str:
        """The decision and its reason, in one line."""
        return f"{self.verdict.decision}: {self.verdict.reason}" if self.verdict else f"no verdict: {self.error}"


@dataclass(frozen=True, slots=True)
class FaultFacts:
    """What was recorded about one fault. None: it did not come to this. The four answers of the witness are those
    before the fault was put in, before the run, after the run, and after the fault was taken out. refused: why the
    database did not take it.
    """

    before: GateRun | None = None
    witness_before: bool | None = None
    witness_on: bool | None = None
    run: GateRun | None = None
    witness_still_on: bool | None = None
    witness_after: bool | None = None
    after: GateRun | None = None
    error: str = ""
    refused: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One fault's line of the matrix. killers: declared checks that failed and name the thing; failed: all that did;
    first: the check that the verdict names first; short: its declared checks alone were asked, and not the whole gate;
    beside: so many other faults were in at once.
    """

    fault: ListedFault
    status: Status
    reason: str
    killers: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    decision: str = ""
    seconds: float = 0.0
    short: bool = False
    first: str = ""
    beside: int = 0

    @property
    def as_declared(self) -> bool:
        """Killed; or, for a no-op, survived."""
        return self.status is (Status.SURVIVED if self.fault.is_noop else Status.KILLED)


def judge(fault: ListedFault, facts: FaultFacts) -> Cell:
    status, reason = _invalid(fault, facts) or (None, "")
    verdict = facts.run.verdict if facts.run else None
    failed = tuple(f for f in verdict.findings if f.outcome == "fail") if verdict else ()
    # A prerequisite of a declared check may see the fault first: it is named, too.
    blockers = {f.blocked_by for f in verdict.findings if fault.declares(f.check)} if verdict else set()
    due = tuple(f for f in failed if fault.declares(f.check) or f.check in blockers)
    if not due and verdict and fault.names and fault.decision is Decision.HOLD:
        # it looks like a wrong set-up of the gate: the unknown prerequisite must name it
        unseen = (f for f in verdict.findings if f.outcome == "unknown" and f.check in blockers)
        due = tuple(f for f in unseen if fnmatchcase(f.check, PREREQUISITES))
    killers = tuple(f.check for f in due if names_it(f, fault.names))
    if status is None and verdict is not None:
        status, reason = _seen(fault, verdict, failed, due, killers)
    return Cell(
        fault,
        status or Status.HARNESS_ERROR,
        reason or "there was no verdict",
        killers,
        tuple(f.check for f in failed),
        verdict.decision.value if verdict else "",
        facts.seconds,
        first=next((f.check for f in verdict.deciding), "") if verdict else "",
    )


def _invalid(fault: ListedFault, facts: FaultFacts) -> tuple[Status, str] | None:
    """Why nothing can be said about the fault, or None."""
    if facts.refused:
        return Status.NOT_INSTALLED, f"it could not be put in: {facts.refused}"
    if facts.error:
        return Status.HARNESS_ERROR, facts.error
    for when, run in (("before", facts.before), ("after", facts.after)):
        if run is None or not run.is_green:
            said = run.said if run else "it was not done"
            return Status.INVALID_BASELINE, f"the clean run {when} was not green: {said}"
    if facts.run is None or facts.run.verdict is None:
        return Status.HARNESS_ERROR, facts.run.said if facts.run else "the gate was not run on the fault"
    answers = (facts.witness_before, facts.witness_on, facts.witness_still_on, facts.witness_after)
    if None in answers:
        return Status.HARNESS_ERROR, "the witness was not asked each time"
    expected = (False,) * 4 if fault.is_noop else (False, True, True, False)
    times = ("before the fault was put in", "before the run", "after the run", "after the fault was taken out")
    for answer, due, when in zip(answers, expected, times, strict=True):
        if answer is not due:
            said = f"the witness says {'on' if answer else 'off'} {when}, where {'on' if due else 'off'} was due"
            return Status.NOT_INSTALLED, said
    return None


def _seen(
    fault: ListedFault, verdict: Verdict, failed: Sequence[Finding], declared: Sequence[Finding], killers: Sequence[str]
) -> tuple[Status, str]:
    """What the gate saw of a fault that was certainly on; `declared`: the declared checks that failed."""
    if verdict.decision is Decision.PROMOTE:
        return Status.SURVIVED, "the gate promoted"
    if killers and fault.decision in {None, verdict.decision}:
        return Status.KILLED, f"{killers[0]}: {_one(verdict.findings, killers[0]).message}"
    if killers:
        said = f"{killers[0]} failed, but the decision was {verdict.decision} where {fault.decision} was due"
        return Status.MASKED, f"{said}: {verdict.reason}"
    if declared:
        names = " or ".join(fault.names)
        return Status.KILLED_COLLATERAL, f"{declared[0].check} failed, but does not name {names}: {declared[0].message}"
    if failed:
        return Status.KILLED_COLLATERAL, f"no declared check failed, but {failed[0].check}: {failed[0].message}"
    return Status.MASKED, f"no check failed, and some could not be carried out: {verdict.reason}"


def _one(findings: Sequence[Finding], check: str) -> Finding:
    return next(f for f in findings if f.check == check)


def names_it(finding: Finding, names: Sequence[str]) -> bool:
    """Whether the finding contains one of the names, in any case; without names every finding does. The check's id does
    not count: it is always the same.
    """
    seen = (finding.observed, finding.limit, finding.witness)
    text = "\n".join([finding.message, *(json.dumps(v, ensure_ascii=False) for v in seen)]).casefold()
    return not names or any(name.casefold() in text for name in names)
