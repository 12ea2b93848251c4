"""The preflight: can the target be reached, is it the right release, and may the login see what it must.

All of it is read-only, except for a company and dry runs for it, if drills may create companies. What cannot be asked
is unknown. Only a wrong release is harm, and the refusal of a credential that this target accepted before.
"""

import contextlib
import datetime as dt
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import psycopg

from gates import disk
from gates.deployment.capabilities import claims, evidence_id
from gates.deployment.credentials import UNUSABLE
from gates.deployment.http.client import HttpDoor
from gates.deployment.redaction import hidden, redact_evidence, redact_text
from gates.deployment.sql.database import lending, see_lending
from gates.deployment.target import WANTED, Target
from gates.evidence import Evidence, JsonValue, Outcome, Severity, Where, stamp
from gates.stages.context import Context, StageReport
from gates.stages.preflight import credentials
from gates.stages.preflight.credentials import Memory, credential_lines
from gates.stages.preflight.database import DATABASE, SIGHT, SKEW, database_lines, with_room
from gates.stages.preflight.endpoints import (
    REACHABLE,
    READY,
    RELEASE,
    TIMEOUT_S,
    clocks,
    reachable,
    ready,
    recognised,
    release,
    release_of,
    versions_of,
)
from gates.stages.preflight.looks import LookResult, after, spec, timed
from gates.stages.preflight.pairing import of_one_deployment

VARIABLES = spec(
    "variables",
    "Every variable that the required checks need is set.",
    "What is not given cannot be checked, and what was not checked does not promote.",
    Severity.WARN,
)
PATIENCE_S, POLL_S = 10.0, 0.5
"""The second look at the release."""
SPECS = (VARIABLES, REACHABLE, RELEASE, READY, DATABASE, SIGHT, SKEW, *credentials.SPECS)


@dataclass(frozen=True, slots=True)
class Preflight:
    """The target with the release that its instances agree on, and the stage's report. unreachable: evidence that
    BASE_URL or DATABASE_URL was given and nothing answers there.
    """

    target: Target
    report: StageReport
    unreachable: tuple[Evidence, ...] = ()


def preflight(context: Context, *, whole_run: bool = False, reads: bool = False) -> Preflight:
    """Ask the target; write one line per check, and one per capability. Blocked checks name the cause.

    whole_run: the release must be seen again later (`release_again`). reads: the later stages only read the database,
    which need not be that of a service.
    """
    started = time.monotonic()
    target = context.target
    memory = _memory(context)
    is_known = target.is_ours or memory.is_known()
    # both at once: each look is a few round trips, and a target may be far
    with ThreadPoolExecutor(3, "preflight") as beside:
        data = beside.submit(database_lines, target, context.scope)
        service, versions = _service_lines(target, is_known=is_known)
        agreed = {release_of(v) for v in versions} - {""}
        hide = hidden(target)
        lines = [timed(VARIABLES, target, lambda: variables(target)), *service, *data.result()]
        if apart := clocks(versions):
            skew = timed(SKEW, target, lambda: apart)
            lines = [skew if e.check == SKEW.id and not e.blocked_by else e for e in lines]
        if not target.release and len(agreed) == 1 and agreed == {redact_text(r, hide) for r in agreed}:
            target = replace(target, release=agreed.pop())  # a release that echoes a secret counts as none
        if not any(e.details.get("unreachable") for e in lines):
            claimed = beside.submit(_capabilities, target, context.companies)
            lent = beside.submit(_lending, target)
            drills = context.applicable(("drill/",))
            if not (reads or target.is_ours) and any(s.where is not Where.READ_ONLY for s in drills):
                note = partial(_note, context.companies)
                lines = [of_one_deployment(e, target, memory, note) if e.check == DATABASE.id else e for e in lines]
            if context.has(credentials.SPECS[0]):
                lines += credential_lines(target, memory)
            lines += claimed.result()
            lent.result()
            if drills and not reads:
                lines = [with_room(e, target) if e.check == DATABASE.id else e for e in lines]
    left_out = set(context.left_out)
    judged = [e for e in lines if e.check not in left_out]
    clean = [redact_evidence(replace(e, release=target.release), hide) for e in judged]
    shut = tuple(e for e in clean if e.details.get("unreachable"))
    again = {RELEASE.id} if whole_run and not shut else set()
    seen = [replace(e, round="before") if e.check in again and e.outcome is Outcome.PASS else e for e in clean]
    context.write(seen)
    seconds = time.monotonic() - started
    checks = [e for e in clean if not e.check.startswith("preflight/capability/")]
    error = "; ".join(e.message for e in shut)
    return Preflight(target, context.ended("preflight", checks, len(checks), seconds, error), shut)


def release_again(context: Context) -> list[StageReport]:
    """Look again at which release answers, after all else: it may have been replaced meanwhile."""
    started, target = time.monotonic(), context.target
    if not target.base_url or not context.applicable((RELEASE.id,)):
        return []
    line = release_now(target)
    message = f"at the end of the run, {line.message}" if line.message else ""
    context.write([replace(line, message=message)])
    return [StageReport("release", time.monotonic() - started)]


def release_now(target: Target) -> Evidence:
    """The release that answers. Waits for instances that restart."""
    started = time.monotonic()
    with HttpDoor(target.base_url, timeout_s=TIMEOUT_S) as door:
        while True:
            line = timed(RELEASE, target, lambda: release(target, versions_of(door)))
            if line.outcome is not Outcome.UNKNOWN or time.monotonic() - started > PATIENCE_S:
                return redact_evidence(line, hidden(target))
            time.sleep(POLL_S)


def _service_lines(target: Target, *, is_known: bool) -> tuple[list[Evidence], list[dict[str, JsonValue]]]:
    """What the service says of itself, and its instances at /version. is_known: it was the service before."""
    versions: list[dict[str, JsonValue]] = []
    with HttpDoor(target.base_url, timeout_s=TIMEOUT_S) as door:
        reached = timed(REACHABLE, target, lambda: reachable(target, door), 3 * TIMEOUT_S)
        if reached.outcome is Outcome.PASS:
            versions = versions_of(door)
        if target.base_url and not is_known and not reached.details.get("unreachable"):
            seen = timed(REACHABLE, target, lambda: recognised(target, door, versions), 3 * TIMEOUT_S)
            reached = seen if seen.outcome is Outcome.UNKNOWN else reached
        lines = [reached]
        lines.append(after(lines, RELEASE, target, lambda: release(target, versions)))
        lines.append(after(lines, READY, target, lambda: ready(door)))
    return lines, versions


def _lending(target: Target) -> None:
    """How a pooler lends its sessions, which limits how many the gate may have, and for how long."""
    with contextlib.suppress(psycopg.Error):  # then it is assumed to lend them for as long as a client stays
        if lending(target.database_url):
            see_lending(target.database_url)


def _memory(context: Context) -> Memory:
    return Memory.of(context.target, context.state)


def refused_by_now(context: Context, credential: str) -> Evidence | None:
    """Try a credential again that got no answer before; returns the evidence that it cannot be used, if so."""
    lines = credential_lines(context.target, _memory(context))
    return next((e for e in lines if e.check == credential and e.observed in UNUSABLE), None)


def variables(target: Target) -> LookResult:
    """The variables of the contract that are missing."""
    missing = [name for name, field in WANTED.items() if not getattr(target, field)]
    if missing:
        one = len(missing) == 1
        said = f"{', '.join(missing)} {'is' if one else 'are'} not set: what needs {'it' if one else 'them'} is unknown"
        message = f"{said}. See docs/contract.md, section 1"
        counted = (len(WANTED) - len(missing), len(WANTED), "variables", len(WANTED))
        return LookResult(Outcome.UNKNOWN, message, *counted, details={"not_set": [*missing]})
    return LookResult(Outcome.PASS, "", len(WANTED), len(WANTED), "variables", len(WANTED))


def _note(companies: Path, company: str) -> None:
    with disk.opened(companies, "a") as file:
        file.write(f"{company}\n")


def _capabilities(target: Target, companies: Path) -> list[Evidence]:
    at = stamp(dt.datetime.now(dt.UTC))
    lines = []
    for name, claimed in claims(target, partial(_note, companies)).items():
        outcome = Outcome.UNKNOWN if claimed is None else Outcome.PASS
        message = "the target could not be asked" if claimed is None else ""
        lines.append(Evidence(evidence_id(name), outcome, message, claimed, samples=1, started_at=at))
    return lines
