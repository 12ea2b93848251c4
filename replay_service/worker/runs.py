"""Replay runs: leasing items, settling each, and ending the run.

Lock order everywhere: outbox row, run, dead letter, budget, audit head. A claim locks the run first, and then only
outbox rows that nobody else has locked.
"""

import uuid

from replay_service.worker.agents import Event, Failure
from replay_service.worker.door import Connection, rows
from replay_service.worker.parts import WorkerParts
from replay_service.worker.rail import Counts

RUNS_AT_ONCE = 20


async def claim_items(conn: Connection, parts: WorkerParts, token: uuid.UUID, slots: int) -> list[Event]:
    """Lease items of runs that have free places, at most `slots`."""
    async with conn.transaction():
        runs = [row[0] for row in await rows(conn, parts.queries["lock_runs"], limit=RUNS_AT_ONCE)]
        if not runs:
            return []
        found = await rows(
            conn,
            parts.queries["claim_items"],
            runs=runs,
            places=parts.places,
            slots=slots,
            token=token,
            lease_s=parts.settings.lease_s,
        )
    return [
        Event(r[0], r[1], r[2], r[3], r[4], r[5], is_scripted=r[7], failures=r[8], replay_run_id=r[6]) for r in found
    ]


async def settle_item(
    conn: Connection, parts: WorkerParts, event: Event, token: uuid.UUID, failure: Failure | None, *, record_task: bool
) -> bool:
    """Settle a leased item, and end its run where it was the last; False where the lease is another's by now.

    Everything that the item changes, its run's end included, commits together.
    """
    queries = parts.queries
    async with conn.transaction():
        if not await rows(conn, queries["fence_item"], id=event.outbox_id, token=token):
            return False
        await rows(conn, queries["lock_run"], run_id=event.replay_run_id)
        ((success, failed, is_stopping),) = await rows(
            conn,
            queries["settle_item"],
            id=event.outbox_id,
            agent=parts.agent.name,
            is_delivered=failure is None,
            error_type=failure.error_type if failure else None,
            error_message=failure.message if failure else None,
            record_task=record_task,
            **parts.settings.retry,
        )
        stops_now = not is_stopping and parts.must_stop(Counts(success, failed))
        if stops_now:
            await rows(conn, queries["return_unattempted"], run_id=event.replay_run_id)
        ((unsettled,),) = await rows(conn, queries["run_standing"], run_id=event.replay_run_id)
        if unsettled == 0:
            status = "stopped" if is_stopping or stops_now else "completed"
            await rows(conn, queries["finish_run"], run_id=event.replay_run_id, status=status)
    return True
