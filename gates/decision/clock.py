"""What to distrust if a clock was set during a run: everything judged by times. Pure; standard library only. Rows are
then late, early, out of order or in another window, and credentials expire; no release did that.
"""

from collections.abc import Iterable
from dataclasses import replace

from gates.decision.assessment import Assessed, number
from gates.evidence import Evidence, Outcome
from gates.verdict import Effect

SKEW, STEPPED_S, SERVICE_ALONE = "preflight/clock-skew", "stepped_s", "service_alone"
"""The check of the clocks, and the details of its evidence: a clock was set; only the service's clock was set."""
RELEASE, DATA = "preflight/release", "sql/"
BY_SERVICE = ("drill/", "load/", "preflight/credentials/")
"""What is seen through the service, which judges credentials by its own clock. Rows have the database's clock."""
OF_NO_TIME = ("schema", "tenancy")
"""Areas whose data checks read no time: how tables are built, and who may see which row."""


def stepped(lines: Iterable[Evidence]) -> Evidence | None:
    """The evidence that a clock was set, if there is any. lines: those of SKEW."""
    return next((e for e in lines if number(e.details.get(STEPPED_S))), None)


def in_doubt(one: Assessed, step: Evidence | None) -> Assessed:
    """The check; its failure is unknown if a clock was set, unless the check does not depend on time."""
    timeless = one.spec.id == RELEASE or (one.spec.id.startswith(DATA) and one.spec.area in OF_NO_TIME)
    if step is None or one.outcome is not Outcome.FAIL or one.line is None or timeless:
        return one
    if step.details.get(SERVICE_ALONE) is True and not one.spec.id.startswith(BY_SERVICE):
        return one
    effect = Effect.HOLD if one.effect is Effect.ROLLBACK else one.effect
    said = f"{one.message} (seen while a clock was wrong)"
    line = replace(one.line, blocked_by=SKEW)
    return replace(one, outcome=Outcome.UNKNOWN, effect=effect, message=said, line=line)
