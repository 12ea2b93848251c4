"""The fewest faults that turn every drill check red, by what they declare; those that cost little come first."""

import fnmatch
from collections.abc import Collection, Iterable

from faults.catalogue import Fault

COSTS = {"proxy": 1.0, "trigger": 1.0, "sql": 1.0, "service": 1.2, "worker": 4.0, "process": 4.0}
"""About how many seconds it takes to put a fault in and out again, beside its checks."""


def declared(fault: Fault, checks: Collection[str]) -> frozenset[str]:
    """The checks that the fault declares."""
    return frozenset(i for p in fault.checks for i in ([p] if p in checks else fnmatch.filter(checks, p)))


def fewest(faults: Iterable[Fault], checks: Collection[str]) -> list[Fault]:
    """Greedily, the fault that shows most new checks for its cost; of equals, the one that shows more that stays
    green.
    """
    known = {fault.id: (fault, declared(fault, checks)) for fault in faults}
    left, chosen = set(checks), list[Fault]()

    def worth(name: str) -> tuple[float, int]:
        fault, shown = known[name]
        return len(shown & left) / COSTS.get(fault.kind, 1.0), len(fault.green)

    while best := max((name for name in known if known[name][1] & left), key=worth, default=None):
        fault, shown = known.pop(best)
        chosen.append(fault)
        left -= shown
    return chosen
