"""The drill stage: sentinels first, then everything in parallel, then, alone, what touches global state."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import psycopg

from gates import disk
from gates.deployment.sql.database import TRANSACTION, lending
from gates.deployment.tenants.leftovers import Lease, remove_left, take_lease, term_of
from gates.evidence import CheckSpec
from gates.stages.context import Context, StageReport
from gates.stages.distance import free_connections, stretched, trip_ms
from gates.stages.suite import SuiteRun, begun, looked
from gates.stages.switches import give_back_after_drills

PREFIX = ("drill/",)
MOST_WORKERS, MOST_LENT = 12, 18
"""The most drills at once. Each has a database session, and sometimes a second one: a pooler lends twenty by default.
More are possible if it lends them per transaction.
"""
SESSIONS_EACH, SESSIONS_KEPT, OTHER_SESSIONS = 2, 1, 6
"""Sessions of a running drill; those that it keeps for the next one without a pooler; those of the gate beside them."""
WORTH_A_WORKER_MS = 10.0
"""Round-trip time that is worth one more worker."""
MOST_BESIDE, WORTH_ONE_BESIDE_MS = 4, 50.0
"""Additional workers for drills without a database session."""
LEAST_BESIDE_LOAD = 2


def drill(context: Context) -> list[StageReport]:
    """Run the drills of this target. One process imports and collects them all, and runs phase after phase."""
    with drills(context) as look:
        return look()


@contextlib.contextmanager
def drills(context: Context, load: Callable[[], None] | None = None) -> Iterator[Callable[[], list[StageReport]]]:
    """The stage as a callable; its process is started now, beside what the block does first. load: called while those
    drills are at work that disturb no load, between the others and those that change global state.
    """
    lease, term = _lease(context)
    try:
        expected = context.applicable(PREFIX)
        if expected:
            with begun(_suite(context, expected, term, load), context) as one:
                yield lambda: [looked(one, context)]
        else:
            yield list
    finally:
        if lease is not None:
            lease.release()
        give_back_after_drills(context)
        _remove_left(context)


def _suite(
    context: Context, expected: Sequence[CheckSpec], term: Sequence[str], load: Callable[[], None] | None
) -> SuiteRun:
    given = (f"--companies={context.companies}", f"--trip-ms={trip_ms(context):.0f}")
    only = [f"--only={pattern}" for pattern in context.only]
    crew = [f"--at-once={workers_for(context)}", f"--beside={beside_for(context)}"]
    crew += [f"--beside-load={beside_load(context)}"] if load else []
    options = (*given, *crew, *only, *term)
    limit_s = stretched(context, context.settings.drill_timeout_s)
    return SuiteRun("drill", "drills", expected, limit_s, options, meanwhile=load)


def _lease(context: Context) -> tuple[Lease | None, tuple[str, ...]]:
    """The lease of all drills of this stage, and the option that passes it to them."""
    if not context.target.database_url:
        return None, ()
    lease, mark = take_lease(context.target.database_url, context.run_id)
    return lease, (f"--lease={term_of(mark, context.target.database_url)}",)


def _remove_left(context: Context) -> None:
    """Remove companies of killed drills. If the database refuses, the next gate removes them."""
    companies = disk.read_text(context.companies).split() if context.companies.exists() else []
    if companies and context.target.database_url:
        with contextlib.suppress(psycopg.Error):
            remove_left(context.target.database_url, companies)


def workers_for(context: Context) -> int:
    """How many drills run at once: the policy's number, more if the target is distant, since they mostly wait. Fewer if
    the server has no room for their sessions, or if the policy limits them: users need them.
    """
    policy = context.settings.drill_workers
    most = MOST_LENT if lending(context.target.database_url) == TRANSACTION else MOST_WORKERS
    wanted = max(policy, min(most, policy + int(trip_ms(context) / WORTH_A_WORKER_MS)))
    own, lent = free_connections(context), context.settings.drill_sessions or None
    for room, each in ((own, SESSIONS_EACH + SESSIONS_KEPT), (lent, SESSIONS_EACH)):
        if room is not None:
            wanted = min(wanted, max(1, (room - OTHER_SESSIONS) // each))
    return wanted


def beside_for(context: Context) -> int:
    """How many more drills without a database session run at once, if the target is distant."""
    return min(MOST_BESIDE, int(trip_ms(context) / WORTH_ONE_BESIDE_MS))


def beside_load(context: Context) -> int:
    """How many drills run at once beside the load, which measures times: few if the target is near."""
    most = workers_for(context) + beside_for(context)
    return min(most, LEAST_BESIDE_LOAD + int(trip_ms(context) / WORTH_A_WORKER_MS))
