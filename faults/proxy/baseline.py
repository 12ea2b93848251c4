"""Faults that only a comparison with the previous release shows: within every limit, and worse than it was."""

import itertools
import time
from collections import deque

from faults.catalogue import proxy
from faults.proxy.rewriting import World, acts, problem
from faults.proxy.server import Defect, Forward, Reply, Sent

SLOWER_S = 0.15
ONE_IN, MANY_A_SECOND = 4, 15
PROBES = ("/healthz", "/version")


@acts
def answers_later(_world: World, sent: Sent, forward: Forward) -> Reply:
    """Every answer to a read comes later, far from any limit."""
    if sent.method == "GET" and not sent.path.endswith("/readyz"):
        time.sleep(SLOWER_S)
    return forward(sent)


def fails_under_load(_world: World) -> Defect:
    """Where many probes come within a second, one in four fails, though all else is well."""
    came: deque[float] = deque(maxlen=MANY_A_SECOND)
    count = itertools.count(1)

    def defect(sent: Sent, forward: Forward) -> Reply:
        if not sent.path.endswith(PROBES):
            return forward(sent)
        came.append(time.monotonic())
        is_load = len(came) == MANY_A_SECOND and came[-1] - came[0] < 1.0
        return problem(503, "unavailable") if is_load and next(count) % ONE_IN == 0 else forward(sent)

    return defect


proxy(
    "baseline/slower-than-the-release-before",
    answers_later,
    ("load/baseline_slower_p50/rate", "load/baseline_slower_p95/rate"),
    names=("baseline_slower",),
)
proxy(
    "baseline/fails-under-load-where-the-release-before-does-not",
    fails_under_load,
    ("load/baseline_failed/rate",),
    names=("baseline_failed",),
)
