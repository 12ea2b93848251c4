"""`python -m replay_service work`: one worker process, from its environment to its exit code."""

import argparse
import asyncio
import importlib
import logging
import random
import signal
import socket
import sys
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import psycopg

from replay_service.logs import configure_logs
from replay_service.settings import ConfigurationError
from replay_service.worker.deliveries import Deliveries
from replay_service.worker.door import Connection, connected, keep_at, rows, settling_pool, wait_for
from replay_service.worker.drain import Drain
from replay_service.worker.lanes import LANES
from replay_service.worker.parts import WorkerParts, build_worker_parts
from replay_service.worker.settings import WorkerSettings, read_worker_settings

try:  # as the HTTP server does: a fifth less processor time
    from uvloop import new_event_loop
except ImportError:
    from asyncio import new_event_loop  # type: ignore[assignment]

CHANNEL = "event_outbox"  # the schema's trigger notifies it
LISTEN_CHUNK_S = 1.0
FAREWELL_LIMIT_S = 1.0
EXIT_CONFIGURATION = 3
_LOG = logging.getLogger("replay_service.worker")

BuildParts = Callable[[WorkerSettings], WorkerParts]
Job = Callable[[Connection], Awaitable[None]]


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Work until SIGTERM or SIGINT. Exit 0, or 3 on a configuration error."""
    parser = argparse.ArgumentParser(prog="python -m replay_service work")
    parser.add_argument("--parts", default="", metavar="MODULE:FUNCTION", help="another composition of the worker")
    options = parser.parse_args(argv)
    try:
        settings = read_worker_settings(environ)
        build = load_composition(options.parts) if options.parts else build_worker_parts
    except ConfigurationError as error:
        sys.stderr.write(f"work: {error}\n")
        return EXIT_CONFIGURATION
    configure_logs(settings.log_level)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(work(build(settings)))
    return 0


def load_composition(place: str) -> BuildParts:
    """The function `module:function`. Raise ConfigurationError where there is none."""
    module, _, name = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"--parts {place} names no composition ({error}); give module:function") from None
    if not callable(found):
        raise ConfigurationError(f"--parts {place} is no function; give module:function")
    build: BuildParts = found
    return build


async def work(parts: WorkerParts) -> None:
    """Drain until a signal comes, then end deliveries, release leases and remove the heartbeat: under 5 s in all."""
    settings = parts.settings
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    worker_id = f"{socket.gethostname()}-{uuid.uuid4().hex[:12]}"
    pool = settling_pool(settings.database_url, settings.settlers)
    await pool.open(wait=False)
    drain = Drain(parts, stop, random.randrange(LANES))  # noqa: S311  -- spreads workers, guards nothing
    deliveries = Deliveries(parts, pool, drain.wake)
    jobs: dict[str, Job] = {
        "scout": partial(drain.scout, deliveries),
        "listen": partial(_listen, drain, stop),
        "beat": partial(_beat, parts, worker_id, drain, stop),
    }
    jobs |= {f"runner-{n}": partial(drain.run, n, deliveries) for n in range(1, settings.runners)}
    started = {"worker_id": worker_id, "agent": parts.agent.name, "release": settings.release}
    async with parts.agent:
        _LOG.info("worker started", extra={"fields": started})
        tasks = [asyncio.create_task(keep_at(name, settings.database_url, job, stop)) for name, job in jobs.items()]
        stopping: asyncio.Task[Any] = asyncio.create_task(stop.wait())
        ended, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        drain.wake()
        await deliveries.close(settings.grace_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await _say_goodbye(parts, worker_id)
    await pool.close(timeout=FAREWELL_LIMIT_S)
    for task in ended - {stopping}:
        task.result()  # a bug, not the database: end with its trace
    _LOG.info("worker stopped", extra={"fields": {"worker_id": worker_id}})


async def _listen(drain: Drain, stop: asyncio.Event, conn: Connection) -> None:
    if conn.is_lent:  # behind a pooler no notification arrives: the scout polls
        await stop.wait()
        return
    await conn.execute(f"LISTEN {CHANNEL}".encode())
    drain.wake()
    while not stop.is_set():
        async for _ in conn.notifies(timeout=LISTEN_CHUNK_S):
            drain.wake()


async def _beat(parts: WorkerParts, worker_id: str, drain: Drain, stop: asyncio.Event, conn: Connection) -> None:
    """Send heartbeats while the drain makes progress: a stuck worker must not look alive."""
    settings = parts.settings
    names = {"worker_id": worker_id, "agent": parts.agent.name, "release": settings.release, "commit": settings.commit}
    while not stop.is_set():
        if drain.still_for_s() < settings.stuck_s:
            await rows(conn, parts.queries["beat"], **names)
        await wait_for(stop, settings.heartbeat_s)


async def _say_goodbye(parts: WorkerParts, worker_id: str) -> None:
    try:
        async with asyncio.timeout(FAREWELL_LIMIT_S), connected(parts.settings.database_url) as conn:
            await rows(conn, parts.queries["bury_heartbeats"], worker_id=worker_id)
    except (psycopg.Error, TimeoutError, OSError) as error:
        _LOG.warning("no goodbye", extra={"fields": {"error": type(error).__name__}})
