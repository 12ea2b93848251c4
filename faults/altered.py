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
"""A text of a statement, and the text that replaces each occurrence of it."""


def instead_of(
    *names: str, of: Callable[[Any], Any] = build_parts
) -> Callable[[Callable[..., Any]], Callable[[Any], Any]]:
    """Make a composition (settings -> Parts) in which the decorated function replaces these parts of `of`."""

    def composed(twin: Callable[..., Any]) -> Callable[[Any], Any]:
        @functools.wraps(twin)
        def build(settings: Any) -> Any:
            return dataclasses.replace(of(settings), **dict.fromkeys(names, twin))

        return build

    return composed


def around(*names: str, of: Callable[[Any], Any] = build_parts) -> Callable[[Callable[..., Any]], Callable[[Any], Any]]:
    """As `instead_of`; the function gets the parts of `of` as its first argument, then the part's own arguments."""

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
    """The service with statements replaced."""
    before = parts.database.statements if isinstance(parts.database, AlteredDatabase) else {}
    looks = {without_lock(old): without_lock(new) for old, new in statements.items()}  # a dry run's
    database = AlteredDatabase(parts.settings, {**before, **looks, **statements})
    return dataclasses.replace(parts, database=database, refusals=RefusalLog(database))


def altered_worker(settings: WorkerSettings, *changes: tuple[str, str, str]) -> WorkerParts:
    """The worker with altered statements: (name, text, its replacement)."""
    parts = build_worker_parts(settings)
    queries = dict(parts.queries)
    for name, old, new in changes:
        queries[name] = rewrite(queries[name], (old, new))
    return dataclasses.replace(parts, queries=queries)


def rewrite(text: bytes, *changes: Change) -> bytes:
    """The altered text. Raise ValueError if it lacks a text that a change replaces."""
    altered_text = text.decode()
    for old, new in changes:
        if old not in altered_text:
            raise ValueError(f"{old!r} does not stand in the statement; mend the fault")
        altered_text = altered_text.replace(old, new)
    return altered_text.encode()


class AlteredDatabase(Database):
    """A pool whose connections replace some statements by others."""

    def __init__(self, settings: Settings, statements: Mapping[bytes, bytes]) -> None:
        super().__init__(settings)
        self.statements = statements

    @asynccontextmanager
    async def connection(self, timeout_s: float | None = None) -> AsyncIterator[Connection]:
        async with super().connection(timeout_s) as conn:
            yield cast("Connection", AlteredConnection(conn, self.statements))


class AlteredConnection:
    """A connection that replaces statements, and passes everything else on."""

    def __init__(self, behind: Connection, statements: Mapping[bytes, bytes]) -> None:
        self._behind, self._statements = behind, statements

    async def execute(self, query: bytes, params: Any = None) -> Any:
        return await self._behind.execute(self._statements.get(query, query), params)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)
