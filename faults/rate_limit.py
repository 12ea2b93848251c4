"""Faults of the rate limit: what it counts, for whom, and how long."""

from __future__ import annotations

from faults.altered import altered
from faults.catalogue import service
from faults.probe import Probe
from replay_service.parts import Parts
from replay_service.settings import Settings


def _admits_four(probe: Probe) -> bool:
    with probe.tenant() as company:
        return [probe.replay(company, dry_run=True).status_code for _ in range(4)] == [200] * 4


@service(
    "The fourth replay request in five minutes is admitted (off by one).",
    _admits_four,
    ("drill/rate-limit/fourth-refused",),
    names=("429",),
)
def one_more(settings: Settings) -> Parts:
    return altered(
        settings,
        "admit_request",
        ("cardinality(seen.hits) >= %(allowed)s)", "cardinality(seen.hits) > %(allowed)s)"),
        (") < %(allowed)s\n", ") <= %(allowed)s\n"),
    )
