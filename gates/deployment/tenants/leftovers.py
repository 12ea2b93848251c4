"""Companies of killed runs and of running ones: how to recognise them, and how to remove the former.

A company is a run's only if its id is the hash of its name; a name alone proves nothing. A run is over only if its
lease has expired, or if nobody holds the advisory lock that a living gate holds from the first company to the last.
Behind a pooler, which may lend the session of a lock to somebody else, no lock is taken and the lease alone decides.
"""

import hashlib
import re
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psycopg

from gates.deployment.ids import id_of
from gates.deployment.sql.connection import Answering
from gates.deployment.sql.database import Connection, connect, execute, lending, session, value
from gates.deployment.sql.kept import borrowed
from gates.deployment.tenants.tenants import Tenants

LEASE_S = 1800
"""Longer than any whole run takes: until then a run without a lock counts as alive."""
HELD, TIMED, KEPT = "h", "t", "k"
"""Marks in the name: the lock tells whether the run lives; the lease alone does; the companies are to be kept."""
_LOCKS = 0x6C6F6164
_RUN = re.compile(r"[0-9a-f]{1,20}")
_NAME = re.compile(
    r"drill-(?:load-([0-9a-f]{8})-([htk])([0-9]{1,12})-[0-9]{1,6}-[0-9]{1,9}"
    r"|([0-9a-f]{1,20})-[a-z0-9-]{1,20}-([ht])([0-9]{1,12})-[0-9a-f]{12})"
)
"""Prefixes of the load stage and of the drills."""


def term_of(mark: str, url: str = "") -> str:
    """The part of new companies' names that has the mark of their run, and until when it may live. By the clock of the
    database at `url`, which other gates use; by ours if it does not tell its time.
    """
    now = int(time.time())
    if url:
        with suppress(psycopg.Error), borrowed(url) as connection:
            now = _now(connection)
    return f"{mark}{now + LEASE_S}"


def _now(connection: Connection) -> int:
    """Epoch seconds by the database's clock."""
    return int(str(value(connection, "select extract(epoch from clock_timestamp())::bigint")))


def name_of(run: str, mark: str, until: int, number: int, nonce: int) -> str:
    """The name of a company: its run (8 hex digits to be found again), and until when (epoch seconds) it may live."""
    return f"drill-load-{run}-{mark}{until}-{number}-{nonce}"


class Lease:
    """The advisory lock of a living run, held by a connection of its own until `release`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def release(self) -> None:
        """Release the lock; whatever is left of the run's companies may be removed from now on."""
        self._connection.close()


def take_lease(url: str, run: str, *, shared: bool = False) -> tuple[Lease | None, str]:
    """The lease of a run and the mark of its companies; None and `TIMED` if no reliable lock is possible. shared:
    several processes of one run hold it together.
    """
    if lending(url):
        return None, TIMED
    try:
        connection = connect(url)
    except psycopg.Error:
        return None, TIMED
    try:
        if not connection.is_pooled:
            with session(url) as other:
                if _try_lock(connection, run, shared=shared) and not is_over(other, run):
                    return Lease(connection), HELD
    except psycopg.Error:
        pass  # without a lock the lease decides
    connection.close()
    return None, TIMED


def is_over(connection: Connection, run: str) -> bool:
    """Whether nobody holds the lock of this run. Takes the lock only to find out."""
    return _try_lock(connection, run, until="xact_")


def _try_lock(connection: Connection, run: str, *, shared: bool = False, until: str = "") -> bool:
    if not _RUN.fullmatch(run):
        return False
    kind = f"pg_try_advisory_{until}lock{'_shared' if shared else ''}"
    return value(connection, f"select {kind}(%s::int, %s::int)", _LOCKS, _number(run)) is True


def _number(run: str) -> int:
    return int.from_bytes(hashlib.sha256(run.encode()).digest()[:4]) - 2**31


@dataclass(frozen=True, slots=True)
class _Company:
    id: str
    run: str
    mark: str
    until: int


def _ours(rows: Iterable[dict[str, object]], spare: str) -> list[_Company]:
    """Those of these companies that a run made and did not mean to keep."""
    found = []
    for row in rows:
        name, company = str(row["name"]), str(row["id"])
        parts = _NAME.fullmatch(name)
        run, mark, until = [p for p in parts.groups() if p is not None] if parts else ("", KEPT, "")
        if mark != KEPT and company == id_of(name) and company != spare.lower():
            found.append(_Company(company, run, mark, int(until)))
    return found


def of_runs(rows: Iterable[dict[str, object]]) -> set[str]:
    """The ids of companies that a run made for itself: nobody uses them."""
    return {one.id for one in _ours(rows, "")}


_NAMED = "select id::text as id, name from public.companies where name like 'drill-%'"


def at_work(url: str, own: Collection[str], spare: str = "") -> list[str]:
    """Names of companies of other runs that live or may live; `own` are excluded. First removes what dead runs left, if
    the login may. Raise psycopg.Error if the database refuses.
    """
    with borrowed(url) as connection:
        with suppress(psycopg.Error):
            _sweep(connection, spare)
        rows = execute(connection, _NAMED)
    names = {str(row["id"]): str(row["name"]) for row in rows}
    return sorted(names[one.id] for one in _ours(rows, spare) if one.id not in own)


def sweep(url: str, spare: str = "") -> list[str]:
    """Remove the companies of dead runs and all that they own except audit rows; never `spare`. Returns their ids.
    Raise psycopg.Error if the database refuses.
    """
    with borrowed(url) as connection:
        return _sweep(connection, spare)


def _sweep(connection: Answering, spare: str) -> list[str]:
    ours = _ours(execute(connection, _NAMED), spare)
    if not ours:
        return []
    now = _now(connection)
    removed: list[str] = []
    for run in sorted({one.run for one in ours}):
        removed += _sweep_run(connection, [one for one in ours if one.run == run], now)
    return removed


def remove_left(url: str, companies: Sequence[str]) -> None:
    """Remove the remaining companies of a run, which could not if it was killed. Raise psycopg.Error."""
    with borrowed(url) as connection:
        asked = "select id::text as id from public.companies where id = any(%s::uuid[])"
        left = [str(row["id"]) for row in execute(connection, asked, list(companies))]
        Tenants(connection, "left").remove(left)


def _sweep_run(connection: Answering, companies: list[_Company], now: int) -> list[str]:
    if not is_over(connection, companies[0].run):
        return []
    dead = [one.id for one in companies if one.until < now or one.mark == HELD]
    Tenants(connection, "load").remove(dead)
    return dead
