"""Keeps connections for reuse: opening one to a distant server takes longer than a query.

If a pooler lends a session for as long as a client stays, an idle client blocks another one. There a run keeps only the
connection that it used last, and a suite none.
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
    """Kept connections by URL, read-only, autocommit; empty outside `keeping`."""

    idle: defaultdict[_Kind, list[Answering]] | None = None
    one_lent: bool = False

    @classmethod
    def clear(cls) -> None:
        for connections in (cls.idle or {}).values():
            while connections:
                connections.pop().close()


@contextmanager
def keeping(*, one_lent: bool = False) -> Iterator[None]:
    """Reuse the connections of `borrowed` within the block; then close them. one_lent: keep one even if a pooler lends
    it for as long as it stays.
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
    """A connection for the block, opened now or kept from before. Without autocommit, uncommitted changes are rolled
    back. A caller that changes it for longer must say so (`may_be_kept`).
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
    """Whether the server ended an idle connection: only then is there something to read. Costs no round trip."""
    if connection.closed:
        return True
    idle = select.poll()
    idle.register(connection.pgconn.socket, select.POLLIN)
    return bool(idle.poll(0))
