"""A round of replays of one tenant, whichever items they ask for: what is refused, counted and charged."""

from functools import partial

import pytest

from drills.ledger.sweep import MOST_TOLD, Swept
from drills.workbench.checks import SQL
from drills.workbench.scene import Scene
from gates.checks.recorder import check
from gates.evidence import Severity

pytestmark = [pytest.mark.together, pytest.mark.waits(1)]
drill = partial(check, needs=SQL, severity=Severity.WARN)


@drill(
    "drill/ledger/refused-however-asked",
    after=(
        *("drill/authentication/random-signature", "drill/tokens/foreign-company", "drill/rate-limit/fourth-refused"),
        *(f"drill/safety-rails/{name}" for name in ("max-over-50", "force-respects-pause", "force-respects-flags")),
    ),
    severity=Severity.PAGE,
    covers=("E08", "G01"),
)
def test_refused_however_asked(scene: Scene, swept: Swept) -> None:
    """A forged signature, a token of another company, a batch that is too large, a limit that is used up, a spent
    budget, a pause and a flag that is off refuse each replay and dry run, whichever items it asks for, and no other.

    In an incident, an operator stops everything, and some kind of request still gets through.
    """
    admitted, late = swept.admitted, swept.late
    scene.seen.witness = list((*admitted, *late)[:MOST_TOLD])
    assert not admitted, f"{len(admitted)} replays were admitted: {admitted[0]}"
    assert not late, f"{len(late)} replays were refused without a reason: {late[0]}"
    scene.seen.require(not swept.odd, f"{len(swept.odd)} replays were neither: {swept.odd[:1]}")
    scene.seen.require(swept.refused, "nothing was refused")
    scene.seen.control(f"{swept.refused} replays were refused")
    scene.seen.count(swept.refused)


@drill("drill/ledger/counted-however-asked", after=("drill/rate-limit/row-as-documented",), covers=("C01",))
def test_counted_however_asked(scene: Scene, swept: Swept) -> None:
    """Each replay and dry run that the rate limit admits counts once, whichever items it asks for, whoever signs it,
    and whatever refuses it later; a request that is refused earlier does not count.

    A kind of request that is free may be sent without end; one that counts twice locks its tenant out.
    """
    scene.seen.witness = list(swept.miscounted[:MOST_TOLD])
    assert not swept.miscounted, f"{len(swept.miscounted)} of {swept.counted}: {swept.miscounted[0]}"
    scene.seen.require(swept.counted, "no replay was looked up in the rate limit")
    scene.seen.control(f"{swept.counted} replays were looked up")
    scene.seen.count(swept.counted)


@drill("drill/ledger/charged-however-asked", after=("drill/budgets/charged-by-items-moved",), covers=("G01",))
def test_charged_however_asked(scene: Scene, swept: Swept) -> None:
    """Day and month are charged for each item that is moved, whichever items a replay asks for.

    A kind of request that is free replays without end.
    """
    scene.seen.require(swept.moved, "the round's replays moved no item: nothing shows what is charged")
    scene.seen.witness = list(swept.mischarged[:MOST_TOLD])
    assert not swept.mischarged, swept.mischarged[0]
    scene.seen.control(f"{swept.moved} items were moved")
    scene.seen.count(swept.moved)
