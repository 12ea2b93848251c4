"""How many sessions a pooler lends the gate at once: a run that waits for them names another cause."""

import contextlib
import threading
from dataclasses import replace

import psycopg

from gates.deployment.sql.database import execute, lending, session
from gates.deployment.target import Target
from gates.evidence import Evidence, Outcome

LEAST, ENOUGH = 7, 12
"""Sessions beside the one that the gate keeps: with fewer not even one drill at a time can run. And those of a whole
run, with that one.
"""
SOON_S, LOOKS = 1.0, 3
"""A pool that others used for a moment is looked at again."""
FEW = (
    "the pooler at DATABASE_URL lends this login {} sessions at once beside the gate's own; a run needs {} in all."
    " Raise its pool (pgbouncer: default_pool_size) to that. Where it has fewer, but at least {}, set"
    " stages: {{drill: {{sessions: N}}}} in gate.yaml"
)


def lent_at_once(url: str) -> int:
    """How many transactions get a session while none of the others ends, up to LEAST."""
    got: list[object] = []
    over = threading.Event()

    def hold() -> None:
        with contextlib.suppress(psycopg.Error), session(url, read_only=True) as one, one.transaction():
            got.append(execute(one, "select 1"))
            if len(got) >= LEAST:
                over.set()
            over.wait()

    threads = [threading.Thread(target=hold, daemon=True) for _ in range(LEAST)]
    for thread in threads:
        thread.start()
    over.wait(SOON_S)
    found = len(got)
    over.set()
    for thread in threads:
        thread.join()
    return found


def with_room(line: Evidence, target: Target) -> Evidence:
    """The line of the database; unknown if the pooler in front of it has no room for a run."""
    if line.outcome is not Outcome.PASS or not lending(target.database_url):
        return line
    found = 0
    for _ in range(LOOKS):
        found = max(found, lent_at_once(target.database_url))
        if found >= LEAST:
            return line
    details = {**line.details, "unreachable": True}
    return replace(line, outcome=Outcome.UNKNOWN, message=FEW.format(found, ENOUGH, LEAST + 1), details=details)
