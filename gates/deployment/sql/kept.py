"""Connections that are kept for whoever asks next: to open one to a server that is far takes longer than to ask.

Where a pooler lends its sessions for as long as a client stays, an idle client keeps another one out: there the process
of a run keeps the one that was used last, and a suite none.
"""

import select
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.pq import TransactionStatus

from gates.deployment.sql.connection import Answering
from gates.deployment.sql.database import SESSION, connect, lending

_Kind = tuple[str, bool, bool]


class _Shelf:
    """What is kept, by URL, read-only, autocommit; nothing outside `keeping`."""

    idle: defaultdict[_Kind, list[Answering]] | None = None
    one_lent: bool = False

    @classmethod
    def clear(cls) -> None:
        for connections in (cls.idle or {}).values():
            while connections:
                connections.pop().close()


@contextmanager
def keeping(*, one_lent: bool = False) -> Iterator[None]:
    """For the time of the block a connection that `borrowed` gave serves the next who asks; then all are closed.
    one_lent: one at a time also where a pooler lends it for as long as it stays.
    """
    if _Shelf.idle is not None:
        yield
        return
    _Shelf.idle, _Shelf.one_lent = defaultdict(list), one_lent
    try:
        yield
    finally:
        _Shelf.clear()
        _Shelf.idle = None


@contextmanager
def borrowed(url: str, *, read_only: bool = False, autocommit: bool = True) -> Iterator[Answering]:
    """A connection for the time of the block, opened now or kept from before. Without autocommit what is not committed
    is rolled back at its end. Who changes it for longer says so (`may_be_kept`).
    """
    kind = (url, read_only, autocommit)
    connection = _taken(kind) or connect(url, read_only=read_only, autocommit=autocommit)
    try:
        yield connection
    finally:
        try:
            if not autocommit and not connection.closed:
                connection.rollback()
        finally:
            _put_back(kind, connection)


def _taken(kind: _Kind) -> Answering | None:
    while _Shelf.idle is not None and _Shelf.idle[kind]:
        connection = _Shelf.idle[kind].pop()
        if not _hung_up(connection):
            return connection
        connection.close()
    return None


def _put_back(kind: _Kind, connection: Answering) -> None:
    is_idle = not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE
    lent = lending(kind[0]) == SESSION
    if _Shelf.idle is not None and is_idle and connection.may_be_kept and (_Shelf.one_lent or not lent):
        if lent:
            _Shelf.clear()
        _Shelf.idle[kind].append(connection)
    else:
        connection.close()


def _hung_up(connection: Answering) -> bool:
    """An idle connection has nothing to say: where something can be read, the server ended it. Costs no round trip."""
    if connection.closed:
        return True
    idle = select.poll()
    idle.register(connection.pgconn.socket, select.POLLIN)
    return bool(idle.poll(0))
