"""Whether the target can still be reached: asked before each stage, so that a dead target ends the run quickly."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence

from gates.deployment.identity import is_another, server_of
from gates.deployment.redaction import hidden, redact_text
from gates.deployment.sql.database import session
from gates.deployment.target import Target
from gates.evidence import Evidence, Outcome
from gates.stages.context import Context, Progress, StageReport
from gates.stages.preflight.database import DATABASE, SERVER
from gates.stages.preflight.looks import LookResult, timed
from gates.stages.watchdog import LOOK_S, known_shut, looks_of

PATIENCE_S = 10.0
"""A target that is gone for less was restarted, by a drill or by its operator."""
POLL_S = 0.5
OTHER = (
    "DATABASE_URL leads to another database by now than when the run began. See who has changed where it leads (a"
    " pooler, a name, an old primary, a restored copy), and run again"
)


def if_reached(
    context: Context, name: str, prefixes: Sequence[str], stage: Callable[[], list[StageReport]]
) -> list[StageReport]:
    """Run the stage. If the target is gone, its checks are unknown and blocked by that, within seconds."""
    started = time.monotonic()
    shut = shut_doors(context)
    if not shut:
        return stage()
    expected = context.applicable(prefixes)
    context.block(expected, shut[0], already=len(context.lines()))
    seconds, error = time.monotonic() - started, shut[0].message
    context.progress(Progress(name, unknown=len(expected), expected=len(expected), seconds=seconds, done=True))
    return [StageReport(name, seconds, 0, error)]


def shut_doors(context: Context) -> list[Evidence]:
    """Evidence of unreachable addresses: seen before in this run, or now and for the whole patience."""
    known = known_shut(context.evidence)
    if known:
        return known
    deadline = time.monotonic() + PATIENCE_S
    judged = next((str(e.details.get(SERVER, "")) for e in context.lines() if e.check == DATABASE.id), "")
    while shut := _look(context.target, judged):
        if time.monotonic() > deadline:
            hide = hidden(context.target)
            lines = [dataclasses.replace(e, message=redact_text(e.message, hide)) for e in shut]
            context.write(lines)
            return lines
        time.sleep(POLL_S)
    return []


def _look(target: Target, judged: str) -> list[Evidence]:
    """Look once at each given address; lines for those that do not answer, or lead to another database by now."""
    lines = []
    for check, look in looks_of(target):
        with contextlib.closing(look):
            lines.append(timed(check, target, look, 2 * LOOK_S + 1))
    if judged and not any(e.details.get("unreachable") for e in lines):
        lines.append(timed(DATABASE, target, lambda: _is_still(judged, target.database_url)))
    return [e for e in lines if e.details.get("unreachable")]


def _is_still(judged: str, url: str) -> LookResult:
    """Whether a new connection still leads to the judged database."""
    with session(url, read_only=True) as connection:
        if is_another(server_of(connection), judged):
            return LookResult(Outcome.UNKNOWN, OTHER, unreachable=True)
    return LookResult(Outcome.PASS)
