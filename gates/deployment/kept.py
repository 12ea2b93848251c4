"""Connections that are kept for whoever asks next: to open one to a server that is far takes longer than to ask.

None is kept where a pooler lends its sessions for as long as a client stays: an idle client keeps another one out.
"""

from __future__ import annotations

import select
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg.pq import TransactionStatus

from gates.deployment.connection import Answering
from gates.deployment.database import SESSION, connect, lending

_Kind = tuple[str, bool, bool]


class _Shelf:
    """What is kept, by URL, read-only, autocommit; nothing outside `keeping`."""

    idle: defaultdict[_Kind, list[Answering]] | None = None


@contextmanager
def keeping() -> Iterator[None]:
    """For the time of the block a connection that `borrowed` gave serves the next who asks; then all are closed."""
    if _Shelf.idle is not None:
        yield
        return
    _Shelf.idle = defaultdict(list)
    try:
        yield
    finally:
        shelf, _Shelf.idle = _Shelf.idle, None
        for connections in shelf.values():
            for connection in connections:
                connection.close()


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
    if _Shelf.idle is not None and is_idle and connection.may_be_kept and lending(kind[0]) != SESSION:
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
