"""Copies of one deployment's database, made in a tenth of a second: each attacked command gets its own."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import psycopg

from gates.errors import CannotWork
from gates.proof.workbench.bench import ProofBench
from gates.stack.postgres import connect
from gates.stack.roles import copy_database, database_url, drop_database

QUIET_TIMEOUT_S = 15.0
POLL_S = 0.05


class Copies:
    """The database of a bench without its service and workers, as a template. Threads may share it."""

    def __init__(self, bench: ProofBench) -> None:
        self._info, self._numbers = bench.stack.info, itertools.count()
        self._server = database_url(self._info.database_url, "postgres")
        self._template = urlsplit(self._info.database_url).path.lstrip("/")
        self._one_at_a_time = threading.Lock()
        bench.kill()

    @contextmanager
    def fresh(self) -> Iterator[Copy]:
        """A new copy for the block. Raise CannotWork if none can be made."""
        name = f"attacked_{next(self._numbers)}"
        with connect(self._server) as connection:
            self._make(connection, name)
            try:
                yield Copy(database_url(self._info.database_url, name), database_url(self._info.gate_url, name))
            finally:
                drop_database(connection, name)

    def _make(self, connection: psycopg.Connection[tuple[object, ...]], name: str) -> None:
        deadline = time.monotonic() + QUIET_TIMEOUT_S
        with self._one_at_a_time:
            while True:
                try:
                    copy_database(connection, name, self._template)
                except psycopg.errors.ObjectInUse as error:
                    if time.monotonic() > deadline:
                        raise CannotWork(f"no copy of the database could be made: {error}") from error
                    time.sleep(POLL_S)
                else:
                    return


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy: its URLs for a superuser and for the gate's own login."""

    superuser_url: str
    gate_url: str
