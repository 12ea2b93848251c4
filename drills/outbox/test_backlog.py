"""A backlog: rows that have waited for long are delivered like new ones."""

from __future__ import annotations

from functools import partial

from drills.workbench.checks import DELIVERS, SQL
from drills.workbench.scene import Scene
from gates.checks.recorder import check

drill = partial(check, needs=SQL, after=DELIVERS)


@drill("drill/outbox/old-rows-are-delivered", covers=("K01", "K09"))
def test_old_rows_are_delivered(scene: Scene) -> None:
    """A row that was written three days ago is delivered like a new one, with a key and without.

    A relay that looks back for an hour, to be quick, loses what waited out a longer pause, and says nothing.
    """
    company = scene.company()
    scene.delivered([str(scene.emit(company, control=True)["event_id"])])
    old = scene.value("select now() - interval '3 days'")
    events = scene.write_each_kind(company, inserted_at=old, next_attempt_at=old)
    events += scene.write_each_kind(company, inserted_at=old, next_attempt_at=old, aggregate_key="waited")
    events += scene.write_outbox(company, 1, aggregate_key="waited")
    scene.delivered(events)
    scene.in_order(events[-3:])
