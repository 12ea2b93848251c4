"""One round of the watch over the target: preflight, read-only SQL checks and alert rules, and some drills.

Never the load, and never what may run on a staging target only: a watch treats every target as production.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from dataclasses import dataclass

from gates.deployment.redaction import hidden, scrub
from gates.deployment.target import Target
from gates.evidence import CheckSpec, TargetKind, Where
from gates.stages.claims import SPEC as CLAIMS
from gates.stages.context import Context, StageReport
from gates.stages.drill import drill
from gates.stages.pipeline import pipeline
from gates.stages.preflight import VARIABLES, preflight
from gates.stages.preflight.database import DATABASE
from gates.stages.sql import ALERTS, DATA, suite
from gates.stages.suite import SuiteRun, run
from gates.stages.switches import SPEC as SWITCHES
from gates.stages.turn import SPEC as ALONE

PROOF = "drill/proof/"
LIMIT_WINDOW_S = 305.0
"""Three calls in any 300 s are allowed for TEST_COMPANY_ID; a little more, because its window begins when they end."""
SQL = (*DATA, *ALERTS)


class Drills(enum.StrEnum):
    """Which drills a round makes."""

    AUTO = "auto"
    NONE = "none"
    SHORT = "short"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """The checks of a round, and those that are not due yet."""

    checks: tuple[CheckSpec, ...]
    not_due: tuple[str, ...] = ()
    drills: Drills = Drills.NONE


@dataclass(frozen=True, slots=True)
class RoundResult:
    """The target, with the release that its instances agree on, and the results of the stages."""

    target: Target
    stages: tuple[StageReport, ...]


def drills_for(target: Target, wanted: Drills) -> Drills:
    """`auto` is the short drill where its variables are given, else none."""
    if wanted is not Drills.AUTO:
        return wanted
    tenant = target.database_url or target.test_company_id
    able = bool(target.base_url and target.hmac_secret and target.admin_jwt and tenant)
    return Drills.SHORT if able else Drills.NONE


def plan(catalogue: Sequence[CheckSpec], target: Target, drills: Drills, since_drill_s: float | None) -> RoundPlan:
    """The checks of a round. since_drill_s: seconds since the last short drill ended, None for never.

    Without a database the short drill acts for TEST_COMPANY_ID, whose rate limit it must leave room: it then runs once
    in five minutes at most. `preflight/variables` is left out: each check says itself what it misses;
    so are `preflight/alone`, since a round of the watch waits for nobody, `preflight/switches-given-back`, which
    changes something, and `preflight/claims`, which is about promotions.
    """
    left_out = {VARIABLES.id, ALONE.id, SWITCHES.id, CLAIMS.id}
    seen = [s for s in catalogue if s.id.startswith("preflight/") and s.id not in left_out]
    everywhere = {Where.READ_ONLY, Where.SELF_CLEANING} if drills is Drills.ALL else {Where.READ_ONLY}
    seen += [s for s in catalogue if s.id.startswith(SQL) and s.where in everywhere and not s.deep]
    prefix = {Drills.SHORT: PROOF, Drills.ALL: "drill/"}.get(drills)
    drilled = [s for s in catalogue if prefix and s.id.startswith(prefix) and not s.deep]
    drilled = [s for s in drilled if TargetKind.PRODUCTION.allows(s.where)]
    too_soon = not target.database_url and since_drill_s is not None and 0 <= since_drill_s < LIMIT_WINDOW_S
    if too_soon:
        later = [s for s in drilled if s.id.startswith(PROOF)]
        return RoundPlan((*seen, *(s for s in drilled if s not in later)), tuple(s.id for s in later), drills)
    return RoundPlan((*seen, *drilled), (), drills)


def look(context: Context, plan: RoundPlan) -> RoundResult:
    """Ask, in this order: preflight, the gate itself, SQL and alerts, drills; all of it is then in `context.evidence`.

    context.companies holds the companies of earlier rounds, which the SQL checks leave out; those of this round follow.
    """
    guarded = dataclasses.replace(context.target, kind=TargetKind.PRODUCTION, control="")
    context = dataclasses.replace(context, target=guarded, catalogue=plan.checks, deep=False)
    first = preflight(context)
    context = dataclasses.replace(context, target=first.target)
    stages = [first.report, *pipeline(context)]
    shut = {e.check: e for e in first.unreachable}
    if DATABASE.id in shut:
        context.block(context.applicable(SQL), shut[DATABASE.id])
    else:
        stages += _sql(context)
    if first.unreachable:
        context.block(context.applicable(("preflight/", "drill/")), first.unreachable[0])
    else:
        stages += _drills(context, plan)
    scrub(context.out, hidden(context.target))
    return RoundResult(first.target, tuple(stages))


def _sql(context: Context) -> list[StageReport]:
    expected = context.applicable(SQL)
    if not expected:
        return []
    return [run(suite(context, "data", expected, [f"--only={s.id}" for s in expected]), context)]


def _drills(context: Context, plan: RoundPlan) -> list[StageReport]:
    if plan.drills is Drills.ALL:
        everything = () if not plan.not_due else [f"--only={s.id}" for s in context.applicable(("drill/",))]
        return drill(context, everything)
    expected = context.applicable((PROOF,))
    if not expected:
        return []
    limit_s = float(context.settings.drill_timeout_s)
    options = (f"--companies={context.companies}", f"--only={PROOF}*")
    return [run(SuiteRun("short drill", "drills", expected, limit_s, options), context)]
