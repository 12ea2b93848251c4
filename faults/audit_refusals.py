"""Faults of how refusals are noted."""

from __future__ import annotations

import dataclasses

from faults.audit import AUDIT, paused_rows
from faults.catalogue import service
from replay_service.audit import RefusalLog, RefusalNote
from replay_service.composition import build_parts
from replay_service.database import Connection
from replay_service.parts import Parts
from replay_service.settings import Settings


@service(
    "Refusals of one second by one code are gathered in memory, and have one row: the second is not on record.",
    lambda p: paused_rows(p) == 0,
    (f"{AUDIT}/refusal-agents-paused", f"{AUDIT}/refusal-feature-disabled"),
    names=("refusal",),
)
def refusals_of_a_second_in_one_row(settings: Settings) -> Parts:
    release = build_parts(settings)

    class Gathering(RefusalLog):
        async def note(self, _conn: Connection, note: RefusalNote) -> None:
            self._count(note)

    return dataclasses.replace(release, refusals=Gathering(release.database))
