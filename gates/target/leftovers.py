"""Companies of the load stage that a killed run left: how they are told from all others, and removed.

A company is one of a load run only if its id is the hash of its name; a name alone proves nothing. Its run is over
only if its lease has expired, or if nobody holds the advisory lock that a living gate holds from the first company to
the last. The lock counts only where it was seen to work: a pooler that lends connections by transaction loses it, and
then the lease alone decides.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

import psycopg

from gates.target.database import Connection, connect, execute, session, value
from gates.target.tenants import Tenants

LEASE_S = 1800
"""Longer than any whole run takes: until then a run without a lock counts as alive."""
HELD, TIMED, KEPT = "h", "t", "k"
"""Marks in the name: the lock tells whether the run lives; the lease alone does; the companies are to be left."""
_LOCKS = 0x6C6F6164
_RUN = re.compile(r"[0-9a-f]{8}")
_NAME = re.compile(r"drill-load-([0-9a-f]{8})-([htk])([0-9]{1,12})-[0-9]{1,6}-[0-9]{1,9}")


def name_of(run: str, mark: str, until: int, number: int, nonce: int) -> str:
    """The name of a company: its run (8 hex digits to be found again), and until when (epoch seconds) it may live."""
    return f"drill-load-{run}-{mark}{until}-{number}-{nonce}"


def id_of(name: str) -> str:
    """The id that belongs to a name: nobody has such a pair by chance."""
    return str(uuid.UUID(bytes=hashlib.sha256(f"replaygate {name}".encode()).digest()[:16], version=4))


class Lease:
    """The advisory lock of a living run, held by a connection of its own until `release`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def release(self) -> None:
        """Let go; whatever is left of the run's companies may be removed from now on."""
        self._connection.close()


def take_lease(url: str, run: str) -> tuple[Lease | None, str]:
    """The lease of a run and the mark of its companies. Where no lock can be had or relied on: None, `TIMED`."""
    try:
        connection = connect(url)
    except psycopg.Error:
        return None, TIMED
    try:
        execute(connection, "set idle_session_timeout = 0")
        with session(url) as other:
            if _try_lock(connection, run) and not _try_lock(other, run):
                return Lease(connection), HELD
    except psycopg.Error:
        pass  # without a lock the lease decides
    connection.close()
    return None, TIMED


def _try_lock(connection: Connection, run: str) -> bool:
    if not _RUN.fullmatch(run):
        return False
    return value(connection, "select pg_try_advisory_lock(%s::int, %s::int)", _LOCKS, _number(run)) is True


def _number(run: str) -> int:
    return int(run, 16) - 2**31


@dataclass(frozen=True, slots=True)
class _Company:
    id: str
    run: str
    mark: str
    until: int


def _ours(rows: Iterable[dict[str, object]], spare: str) -> list[_Company]:
    """Of these companies those that a load run made and did not mean to leave."""
    found = []
    for row in rows:
        name, company = str(row["name"]), str(row["id"])
        parts = _NAME.fullmatch(name)
        if parts and company == id_of(name) and company != spare.lower() and parts[2] != KEPT:
            found.append(_Company(company, parts[1], parts[2], int(parts[3])))
    return found


def sweep(url: str, spare: str = "") -> list[str]:
    """Remove what dead runs left, and all that it owns but audit rows; never `spare`. Returns the ids of the companies.

    Raise psycopg.Error where the database refuses.
    """
    with session(url) as connection:
        rows = execute(connection, "select id::text as id, name from companies where name like 'drill-load-%'")
        ours = _ours(rows, spare)
        if not ours:
            return []
        now = int(str(value(connection, "select extract(epoch from clock_timestamp())::bigint")))
        removed: list[str] = []
        for run in sorted({one.run for one in ours}):
            removed += _sweep_run(connection, [one for one in ours if one.run == run], now)
        return removed


def _sweep_run(connection: Connection, companies: list[_Company], now: int) -> list[str]:
    run = companies[0].run
    if not _try_lock(connection, run):
        return []
    try:
        dead = [one.id for one in companies if one.until < now or one.mark == HELD]
        Tenants(connection, "load").remove(dead)
        return dead
    finally:
        execute(connection, "select pg_advisory_unlock(%s::int, %s::int)", _LOCKS, _number(run))
