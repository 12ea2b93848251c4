"""What a clock that was set in a run can be blamed for: all that was judged by times. Pure; standard library only.

Rows are then late, early, out of order or of another window, credentials run out, and no release did that.
"""

from collections.abc import Iterable
from dataclasses import replace

from gates.decision.assessment import Assessed, number
from gates.evidence import Evidence, Outcome
from gates.verdict import Effect

SKEW, STEPPED_S, SERVICE_ALONE = "preflight/clock-skew", "stepped_s", "service_alone"
"""The check of the clocks, and what its details say of one that was set, and of that of the service alone."""
RELEASE, DATA = "preflight/release", "sql/"
BY_SERVICE = ("drill/", "load/")
"""What is seen through a service, which judges credentials by its own clock; rows have the database's."""
OF_NO_TIME = ("schema", "tenancy")
"""Areas whose checks of the data read no time: how tables are made, and who may see which row."""


def stepped(lines: Iterable[Evidence]) -> Evidence | None:
    """The evidence that a clock was set, if one was. lines: those of SKEW."""
    return next((e for e in lines if number(e.details.get(STEPPED_S))), None)


def in_doubt(one: Assessed, step: Evidence | None) -> Assessed:
    """The check, whose failure is unknown where a clock was set, unless it goes by no time."""
    timeless = one.spec.id == RELEASE or (one.spec.id.startswith(DATA) and one.spec.area in OF_NO_TIME)
    if step is None or one.outcome is not Outcome.FAIL or one.line is None or timeless:
        return one
    if step.details.get(SERVICE_ALONE) is True and not one.spec.id.startswith(BY_SERVICE):
        return one
    effect = Effect.HOLD if one.effect is Effect.ROLLBACK else one.effect
    said = f"{one.message} (seen while a clock was set)"
    line = replace(one.line, blocked_by=SKEW)
    return replace(one, outcome=Outcome.UNKNOWN, effect=effect, message=said, line=line)
