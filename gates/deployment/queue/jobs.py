"""Access to a queue: how much waits, what has ended, and jobs of the gate's own."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import psycopg

from gates.contract.fragments import FragmentError
from gates.contract.queues import Queue, identifier, literal
from gates.deployment.queue.schema import look_at
from gates.deployment.sql.database import connect, value
from gates.text.foreign import number, text, whole

WAITING = "select count(*) from {{waiting}} w"
ENDED = "select count(*) from {{finished}} f where good and at >= {{since}}"
DELETED = "with {{heap}} select coalesce(sum(pg_stat_get_tuples_deleted(oid)), 0)::bigint from heap where deletes"
PARKED = "select count(*) from {{parked}} p"
DONE, FAILED, LOST = "done", "failed", "lost"


class QueueTroubleError(Exception):
    """The queue cannot be judged, or the gate may not enqueue there: says what was observed, and what to do."""


@dataclass(frozen=True, slots=True)
class JobState:
    """One of the gate's jobs. took_s: from enqueued to done, by the database's clock if it says so."""

    id: str
    state: str
    took_s: float | None
    effects: int


class QueueDoor:
    """A context: one connection to the queue; read-only unless the policy names a job that may be enqueued."""

    def __init__(self, queue: Queue, url: str) -> None:
        self.queue = queue
        self._connection = connect(url, read_only=queue.options.probe is None)

    def __enter__(self) -> Self:
        look = look_at(self.queue, self._connection)
        if look.trouble:
            self._connection.close()
            raise QueueTroubleError(look.trouble)
        self._schema = look.schema
        self._since = literal(text(value(self._connection, "select now()::text")))
        mark = "select pg_current_wal_insert_lsn()::text" if self.queue.preset.passed else "select ''"
        self._mark = literal(text(value(self._connection, mark)))
        self._deleted, self._parked = self._counts()
        return self

    def __exit__(self, *_error: object) -> None:
        self._connection.close()

    def waiting(self) -> int:
        """Jobs that are due and free to be claimed."""
        return self._count(WAITING)

    def ended(self) -> int:
        """Jobs that succeeded since the connection was opened, as far as tables or the server's counters show.

        If success deletes the row, deleted rows count, without dead letters; if the producer deletes it, only once
        something was delivered since.
        """
        if (passed := self.queue.preset.passed) and not value(
            self._connection, self.queue.written(passed, self._schema, mark=self._mark)
        ):
            return 0
        deleted, parked = self._counts()
        gone = max(0, deleted - self._deleted - max(0, self._parked - parked))
        return gone + self._count(ENDED, since=f"{self._since}::timestamptz")

    def _counts(self) -> tuple[int, int]:
        return self._count(DELETED), self._count(PARKED)

    def _count(self, query: str, **given: str) -> int:
        """The number; 0 if the queue has no such notion."""
        try:
            written = self.queue.written(query, self._schema, **given)
        except FragmentError:
            return 0
        return whole(value(self._connection, written)) or 0

    def enqueue(self) -> str:
        """Enqueue one job; returns its id. Raise QueueTroubleError if the queue refuses it."""
        probe, way = self.queue.options.probe, self.queue.preset.probe
        if probe is None:
            raise QueueTroubleError("the policy names no job that the gate may enqueue")
        statement = probe.statement or (self.queue.written(way.enqueue, self._schema) if way else "")
        given = {"name": probe.name, "queue": probe.queue, "payload": json.dumps(probe.payload)}
        # its triggers and functions name tables without a schema; ours are found in pg_catalog first
        path = f"pg_catalog, {identifier(self.queue.schema)}, public"
        try:
            with self._connection.transaction():
                value(self._connection, "select set_config('search_path', %s, true)", path)
                row = self._connection.execute(statement.encode(), given).fetchone()
        except psycopg.Error as error:
            told = str(error).strip().splitlines()[0]
            raise QueueTroubleError(
                f"the gate's login cannot enqueue a job of {probe.name}: {told}. Grant it, or remove `probe`"
            ) from error
        if row is None or row.get("id") is None:
            raise QueueTroubleError(f"enqueueing a job of {probe.name} gave no `id`. Let the statement return one")
        return text(row["id"])

    def look(self, ids: Sequence[str]) -> list[JobState]:
        """What became of jobs. If success deletes a job, a missing one is done; but if one is there as done, jobs are
        kept, and missing ones are lost.
        """
        way = self.queue.preset.probe
        if way is None or not ids:
            return []
        found = self._connection.execute(self.queue.written(way.look, self._schema).encode(), self._given(ids))
        seen = [JobState(text(r["id"]), text(r["state"]), number(r["took_s"]), whole(r["effects"]) or 0) for r in found]
        if not self._schema.forgets or any(job.state == DONE for job in seen):
            return seen
        here = [job for job in seen if job.state != LOST]
        return [*here, *(JobState(i, DONE, None, 1) for i in ids if i not in {job.id for job in here})]

    def remove(self, ids: Sequence[str]) -> None:
        """Remove jobs that nobody has claimed, if the login may."""
        way = self.queue.preset.probe
        if way is not None and way.remove and ids:
            with contextlib.suppress(psycopg.Error):
                self._connection.execute(self.queue.written(way.remove, self._schema).encode(), self._given(ids))

    def _given(self, ids: Sequence[str]) -> dict[str, object]:
        probe = self.queue.options.probe
        return {"name": probe.name if probe else "", "ids": list(ids)}
