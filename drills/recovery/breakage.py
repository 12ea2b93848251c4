"""Breaks processes and database sessions, and checks that the books of a tenant balance afterwards."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import psycopg

from drills.workbench.database import SqlDoor
from drills.workbench.scene import Scene, new_key
from drills.workbench.tenant_data import as_jsonb
from gates.checks.recorder import check
from gates.deployment.control import Control
from gates.deployment.sql.database import connect, execute

delivery_drill = partial(
    check, needs=("database", "drill-agent"), after=("drill/outbox/delivered-once",), phase="last", deep=True
)
"""A check of deliveries under fire: id, covers and where are its own."""

request_drill = partial(
    check, needs=("database",), after=("drill/authentication/signed-accepted",), phase="last", deep=True
)
"""A check of requests under fire: id, covers and where are its own."""

END_S = 8.0
"""How long a process that is asked to end may take; what a machine gives it is longer, mostly."""
DRAIN_S = 20.0
"""How long a drill's backlog may take to drain when the faults have stopped and its claims have run out."""


@contextmanager
def processes(scene: Scene) -> Iterator[Control]:
    """The processes of the stack, mended at the end. Ends the check where the gate did not start the stack."""
    scene.seen.require(scene.target.control, "the gate did not start this stack: its processes cannot be killed")
    with Control(scene.target.control) as control:
        yield control


def named(control: Control, kind: str) -> list[str]:
    """The names of the stack's processes of a kind: `worker`, `service`, `postgres`."""
    return [p.name for p in control.processes() if p.name.startswith(kind)]


def kill_all(control: Control, kind: str, signal: str = "SIGKILL") -> None:
    """Kill every process of a kind, or ask it to end, and return when they are gone, or after END_S."""
    for name in named(control, kind):
        control.kill(name, signal)
    deadline = time.monotonic() + END_S
    while time.monotonic() < deadline and any(p.pid for p in control.processes() if p.name.startswith(kind)):
        time.sleep(0.05)


def terminate_backends(scene: Scene, role: str) -> int:
    """End every database session of a role; how many there were."""
    return _terminate(scene, "usename = %s and datname = current_database()", role)


def terminate_waiting_for(scene: Scene, holder: int) -> int:
    """End the sessions that wait for a lock held by the backend `holder`; how many there were."""
    return _terminate(scene, "%s = any(pg_blocking_pids(pid))", holder)


def terminate_once_there(scene: Scene, role: str, company: str) -> int:
    """End every session of a role that is there while the tenant has a run; how many there were."""
    there = "exists (select from public.replay_runs where company_id = %s)"
    return _terminate(scene, f"usename = %s and datname = current_database() and {there}", role, company)


def _terminate(scene: Scene, which: str, *values: object) -> int:
    try:
        return scene.number(
            f"select count(*) from (select pg_terminate_backend(pid) from pg_stat_activity where {which}) t", *values
        )
    except psycopg.errors.InsufficientPrivilege:
        scene.seen.unmet(
            "this login may not end other sessions. `gate doctor --grants` prints the right as a comment at its end:"
            " uncomment it on staging, never on production"
        )


def work(scene: Scene, company: str, delay_ms: int) -> list[str]:
    """Nine events, three each of two new keys and of none; the agent takes its time for the first of each three alone.

    So there is a time in which some are delivered, some are in the agent's hands and some wait for those before them.
    They come in one transaction: that time must not pass while they are written.
    """
    slow = as_jsonb({"drill": {"delay_ms": delay_ms}})
    events: list[str] = []
    with scene.transaction() as connection:
        for key in (None, new_key(), new_key()):
            events += scene.write_outbox(company, 1, connection=connection, aggregate_key=key, payload=slow)
            events += scene.write_outbox(company, 2, connection=connection, aggregate_key=key)
        connection.commit()
    return events


def let_claims_run_out(scene: Scene, company: str) -> None:
    """Advance the clock of a tenant's rows: what a killed worker had claimed is free, what waits is due."""
    scene.rows(
        "update public.event_outbox set claimed_until = now() - interval '1 second' where company_id = %s"
        " and claimed_until > now() and processed_at is null and dead_at is null",
        company,
    )
    scene.make_due(company)


@dataclass(frozen=True)
class Books:
    """A tenant's outbox in one snapshot."""

    emitted: int
    pending: int
    in_flight: int
    processed: int
    dead: int
    effects: int
    twice: int

    @property
    def balanced(self) -> bool:
        return self.emitted == self.pending + self.in_flight + self.processed + self.dead


BOOKS = """
with r as (
  select o.event_id, o.processed_at is not null as processed, o.dead_at is not null as dead,
         coalesce(o.claimed_until > now(), false) as claimed
  from public.event_outbox o where o.company_id = %s
), e as (
  select event_id, count(*) as n from public.agent_tasks where company_id = %s and status = 'completed'
    group by event_id
)
select (select count(*) from unnest(%s::uuid[]) id where exists (select from r where r.event_id = id)) as emitted,
       (select count(*) from r where not processed and not dead and not claimed) as pending,
       (select count(*) from r where not processed and not dead and claimed) as in_flight,
       (select count(*) from r where processed) as processed,
       (select count(*) from r where dead and not processed) as dead,
       (select count(*) from e) as effects,
       (select count(*) from e where n > 1) as twice
"""


def books(scene: Scene, company: str, events: Sequence[str]) -> Books:
    """The tenant's books."""
    row = scene.one(BOOKS, company, company, list(events))
    return Books(**{k: int(v) for k, v in row.items()})


def assert_recovered(scene: Scene, company: str, events: Sequence[str], *, settle_s: float = 0.0) -> None:
    """After the faults: the backlog drains, each effect is there once, the ledger balances, new events go through.

    settle_s: how long attempts may still be under way that nobody waits for any more.
    """
    let_claims_run_out(scene, company)

    def drained() -> bool:
        # claims are left alone from here on: those that run now are those of living workers
        scene.make_due(company)
        return set(events) <= set(scene.effects(events))

    scene.until(drained, f"the effects of {len(events)} events after the fault", within_s=DRAIN_S)
    scene.until(lambda: books(scene, company, events).processed >= len(events), "the rows as processed")
    time.sleep(settle_s)
    now = books(scene, company, events)
    scene.seen.details["books"] = str(now)
    assert now.emitted == len(events), f"{len(events) - now.emitted} of {len(events)} events are gone from the outbox"
    assert now.balanced, f"the ledger does not balance: {now}"
    assert now.twice == 0, f"{now.twice} events have more than one effect after the fault"
    scene.seen.count(len(events))
    scene.passes_by(company, 1)


def reconnect(scene: Scene, door: SqlDoor) -> None:
    """Open the check's connection anew, after the database was restarted."""
    scene.db.close()
    scene.until_true(lambda: _opens(scene), within_s=15)
    scene.db = door.connection()
    scene.tenants.connection = scene.db


def _opens(scene: Scene) -> bool:
    try:
        with connect(scene.target.database_url) as connection:
            execute(connection, "select 1")
    except psycopg.OperationalError:
        return False
    return True
