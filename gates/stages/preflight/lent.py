"""How many sessions a pooler lends the gate at once: a run that waits for them names another cause."""

import contextlib
import threading
from dataclasses import replace

import psycopg

from gates.deployment.sql.database import execute, lending, session
from gates.deployment.target import Target
from gates.evidence import Evidence, Outcome

ROOM = "free_connections"
"""Detail of the database check: how many sessions are left for us; a pooler with enough of them has none."""
LEAST, ENOUGH = 8, 12
"""Fewer are not enough for one drill at a time and what the gate does beside; so many are enough from near."""
SOON_S, LOOKS = 1.0, 3
"""A pool that others used for a moment is looked at again."""
FEW = (
    "the pooler at DATABASE_URL lends this login {} sessions at once; a run needs {}. Raise its pool (pgbouncer:"
    " default_pool_size) to {} or more; with fewer, at least {}, set stages: {{drill: {{sessions: N}}}} in gate.yaml"
)


def lent_at_once(url: str) -> int:
    """How many transactions get a session while none of the others ends, up to ENOUGH."""
    got: list[object] = []
    over = threading.Event()

    def hold() -> None:
        with contextlib.suppress(psycopg.Error), session(url, read_only=True) as one, one.transaction():
            got.append(execute(one, "select 1"))
            if len(got) >= ENOUGH:
                over.set()
            over.wait()

    threads = [threading.Thread(target=hold, daemon=True) for _ in range(ENOUGH)]
    for thread in threads:
        thread.start()
    over.wait(SOON_S)
    found = len(got)
    over.set()
    for thread in threads:
        thread.join()
    return found


def with_room(line: Evidence, target: Target) -> Evidence:
    """The line of the database with the room of a small pool; unknown if no run fits into it."""
    if line.outcome is not Outcome.PASS or not lending(target.database_url):
        return line
    found = 0
    for _ in range(LOOKS):
        found = max(found, lent_at_once(target.database_url))
        if found >= LEAST:
            return line if found >= ENOUGH else replace(line, details={**line.details, ROOM: found})
    details = {**line.details, "unreachable": True}
    return replace(line, outcome=Outcome.UNKNOWN, message=FEW.format(found, ENOUGH, ENOUGH, LEAST), details=details)
