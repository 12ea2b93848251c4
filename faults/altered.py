"""How a fault is made: the release's composition with one part replaced, or with one statement altered."""

import dataclasses
import functools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from replay_service.audit import RefusalLog
from replay_service.claim import without_lock
from replay_service.composition import build_parts
from replay_service.database import QUERIES, Connection, Database
from replay_service.parts import Parts
from replay_service.settings import Settings
from replay_service.worker.parts import WorkerParts, build_worker_parts
from replay_service.worker.settings import WorkerSettings

Change = tuple[str, str]
"""What stands in a statement, and what stands there in its place, wherever it does."""


def instead_of(
    *names: str, of: Callable[[Any], Any] = build_parts
) -> Callable[[Callable[..., Any]], Callable[[Any], Any]]:
    """Make the composition (settings -> Parts) that has the decorated function in the place of these parts of `of`."""

    def composed(twin: Callable[..., Any]) -> Callable[[Any], Any]:
        @functools.wraps(twin)
        def build(settings: Any) -> Any:
            return dataclasses.replace(of(settings), **dict.fromkeys(names, twin))

        return build

    return composed


def around(*names: str, of: Callable[[Any], Any] = build_parts) -> Callable[[Callable[..., Any]], Callable[[Any], Any]]:
    """As `instead_of`, of a function that is told the parts of `of` first, before what the part itself is told."""

    def composed(twin: Callable[..., Any]) -> Callable[[Any], Any]:
        @functools.wraps(twin)
        def build(settings: Any) -> Any:
            release = of(settings)
            return dataclasses.replace(release, **dict.fromkeys(names, functools.partial(twin, release)))

        return build

    return composed


def altered(settings: Settings, name: str, *changes: Change) -> Parts:
    """The service whose statement `name` is altered."""
    return with_database(build_parts(settings), {QUERIES[name]: rewrite(QUERIES[name], *changes)})


def with_database(parts: Parts, statements: Mapping[bytes, bytes]) -> Parts:
    """The service with these statements in the place of others."""
    before = parts.database.statements if isinstance(parts.database, AlteredDatabase) else {}
    looks = {without_lock(old): without_lock(new) for old, new in statements.items()}  # a dry run's
    database = AlteredDatabase(parts.settings, {**before, **looks, **statements})
    return dataclasses.replace(parts, database=database, refusals=RefusalLog(database))


def altered_worker(settings: WorkerSettings, *changes: tuple[str, str, str]) -> WorkerParts:
    """The worker with altered statements: (name, what stands in it, what stands there in its place)."""
    parts = build_worker_parts(settings)
    queries = dict(parts.queries)
    for name, old, new in changes:
        queries[name] = rewrite(queries[name], (old, new))
    return dataclasses.replace(parts, queries=queries)


def rewrite(text: bytes, *changes: Change) -> bytes:
    """The altered text. Raise ValueError where what a change replaces does not stand in it."""
    altered_text = text.decode()
    for old, new in changes:
        if old not in altered_text:
            raise ValueError(f"{old!r} does not stand in the statement; mend the fault")
        altered_text = altered_text.replace(old, new)
    return altered_text.encode()


class AlteredDatabase(Database):
    """A pool whose connections run other texts in the place of some statements."""

    def __init__(self, settings: Settings, statements: Mapping[bytes, bytes]) -> None:
        super().__init__(settings)
        self.statements = statements

    @asynccontextmanager
    async def connection(self, timeout_s: float | None = None) -> AsyncIterator[Connection]:
        async with super().connection(timeout_s) as conn:
            yield cast("Connection", AlteredConnection(conn, self.statements))


class AlteredConnection:
    """A connection that swaps statements and is otherwise the one behind."""

    def __init__(self, behind: Connection, statements: Mapping[bytes, bytes]) -> None:
        self._behind, self._statements = behind, statements

    async def execute(self, query: bytes, params: Any = None) -> Any:
        return await self._behind.execute(self._statements.get(query, query), params)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)
