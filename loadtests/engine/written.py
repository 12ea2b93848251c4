"""What the deployment acknowledged as written under load; after the load it is looked for in the database. Pure.

A rate of answers cannot tell an acknowledged event from one that was also written, and one lost event is one too many.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from gates.deployment.ids import answered

EVENT, RUN = "event", "run"
LOST = {EVENT: "events_lost", RUN: "runs_lost"}
"""Kind of what is written -> the metric that counts those that are not there."""
MOST = 100_000
"""Of each kind; what comes later in a long run is not looked for."""


class Acknowledgement(NamedTuple):
    """An event by its id, or a replay by its idempotency key."""

    kind: str
    id: str


def acknowledged(writes: Acknowledgement, body: bytes) -> Acknowledgement:
    """What an answer of success acknowledges: an event that came without an id is the one that the answer names."""
    return writes if writes.id else writes._replace(id=str(answered(body).get("event_id")))


@dataclass(slots=True)
class Acknowledged:
    """All that was acknowledged in a run, by kind, each once (a duplicate is acknowledged again)."""

    ids: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in LOST})
    _known: set[Acknowledgement] = field(default_factory=set)

    def take(self, came: Iterable[Iterable[str]]) -> None:
        for kind, one in came:
            if (kind, one) not in self._known and len(self.ids[kind]) < MOST:
                self._known.add(Acknowledgement(kind, one))
                self.ids[kind].append(one)
