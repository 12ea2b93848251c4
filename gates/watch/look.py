"""One round of the watch over the target: preflight, read-only SQL checks and alert rules, and some drills. Never the
load, and nothing that may run only on staging: a watch treats every target as production.
"""

import enum
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from gates.deployment.redaction import hidden, scrub
from gates.deployment.target import Target
from gates.evidence import CheckSpec, TargetKind, Where
from gates.reports.citation import SHIPPED
from gates.stages.claims import SPEC as CLAIMS
from gates.stages.clock import ClockWatch
from gates.stages.context import Context
from gates.stages.drill import drills
from gates.stages.load import LOAD
from gates.stages.pipeline import pipeline
from gates.stages.preflight import VARIABLES, preflight
from gates.stages.preflight.database import DATABASE
from gates.stages.sql import ALERTS, DATA, data
from gates.stages.switches import SPEC as SWITCHES
from gates.stages.turn import SPEC as ALONE

PROOF = "drill/proof/"
LIMIT_WINDOW_S = 305.0
"""Three calls in any 300 s are allowed for TEST_COMPANY_ID; a little more, because its window begins when they end."""
SQL = (*DATA, *ALERTS)


class Drills(enum.StrEnum):
    AUTO = "auto"
    NONE = "none"
    CANARY = "canary"
    SHORT = "short"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """The checks of a round, and those that are not due yet."""

    checks: tuple[CheckSpec, ...]
    not_due: tuple[str, ...] = ()
    drills: Drills = Drills.NONE


def drills_for(target: Target, wanted: Drills) -> Drills:
    """`auto`: the canary's drills if their variables are given and a proof has chosen them; without a database or a
    proof, the short drill; else none.
    """
    if wanted is not Drills.AUTO:
        return wanted
    if not (target.base_url and target.hmac_secret and target.admin_jwt):
        return Drills.NONE
    if target.database_url and canary():
        return Drills.CANARY
    return Drills.SHORT if target.database_url or target.test_company_id else Drills.NONE


def canary(proof: Path = SHIPPED) -> tuple[str, ...]:
    """The drills that killed the most faults in a few seconds in the last whole proof; none without one."""
    try:
        return tuple(map(str, json.loads(proof.read_text(encoding="utf-8"))["canary"]["checks"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ()


def plan(catalogue: Sequence[CheckSpec], target: Target, drills: Drills, since_drill_s: float | None) -> RoundPlan:
    """The checks of a round. since_drill_s: seconds since the last short drill ended, None for never.

    Without a database the short drill uses TEST_COMPANY_ID, whose rate limit it must respect: it then runs at most once
    in five minutes. Left out: `preflight/variables`, since each check names what it misses; `preflight/alone`, since a
    round waits for nobody; `preflight/switches-given-back`, which changes something; `preflight/claims`, of promotions.
    """
    left_out = {VARIABLES.id, ALONE.id, SWITCHES.id, CLAIMS.id}
    seen = [s for s in catalogue if s.id.startswith("preflight/") and s.id not in left_out]
    everywhere = {Where.READ_ONLY, Where.SELF_CLEANING} if drills is Drills.ALL else {Where.READ_ONLY}
    seen += [s for s in catalogue if s.id.startswith(SQL) and s.where in everywhere and not s.deep]
    prefixes, chosen = {Drills.SHORT: (PROOF,), Drills.ALL: ("drill/",)}.get(drills, ()), set[str]()
    if drills is Drills.CANARY:
        chosen = {c for c in canary() if not c.startswith(LOAD)}
    drilled = [s for s in catalogue if s.id in chosen or s.id.startswith(prefixes)]
    drilled = [s for s in drilled if TargetKind.PRODUCTION.allows(s.where) and not s.deep]
    too_soon = not target.database_url and since_drill_s is not None and 0 <= since_drill_s < LIMIT_WINDOW_S
    if too_soon:
        later = [s for s in drilled if s.id.startswith(PROOF)]
        return RoundPlan((*seen, *(s for s in drilled if s not in later)), tuple(s.id for s in later), drills)
    return RoundPlan((*seen, *drilled), (), drills)


def look(context: Context, plan: RoundPlan) -> str:
    """Run preflight, the gate's own checks, SQL and alerts, then drills; the results are in `context.evidence`. All
    processes start at once. Returns the release that the instances agree on.

    context.companies has those of earlier rounds, which the SQL checks leave out; those of this round are added.
    """
    guarded = replace(context.target, kind=TargetKind.PRODUCTION, control="")
    context = replace(context, target=guarded, catalogue=plan.checks, deep=False)
    first = preflight(context)
    context = replace(context, target=first.target, only=tuple(s.id for s in plan.checks))
    looks = []
    shut = {e.check: e for e in first.unreachable}
    with ExitStack() as ahead, ThreadPoolExecutor(1, "pipeline") as beside:
        own = beside.submit(pipeline, context)
        if not shut:
            ahead.enter_context(ClockWatch(context))
        if DATABASE.id not in shut:
            looks.append(ahead.enter_context(data(context)))
        if not shut:
            looks.append(ahead.enter_context(drills(context)))
        own.result()
        for one in looks:
            one()
        if DATABASE.id in shut:
            context.block(context.applicable(SQL), shut[DATABASE.id])
        if shut:
            context.block(context.applicable(("preflight/", "drill/")), first.unreachable[0])
    scrub(context.out, hidden(context.target))
    return first.target.release
