"""The gauges of the process and of the database, for /metrics."""

import asyncio
import resource
import time
from pathlib import Path

import psycopg

from replay_service.database import ANSWER_S, Connection, Database, fetch_row, fetch_rows
from replay_service.metrics import heading, sample

SCRAPE_S = 5.0
MIN_GAUGE_AGE_S = 0.2
GAUGE_COST_SHARE = 20
"""Gauges are cached for 20 times the duration of their queries, so that scraping takes at most 5 % of the database's
time."""


def memory_lines() -> list[str]:
    """The memory of this process in bytes, named as Prometheus' clients name it; empty except on Linux."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return []
    name = "process_resident_memory_bytes"
    return [*heading(name, "gauge", "Resident memory."), sample(name, (), (), pages * resource.getpagesize())]


class Gauges:
    """Gauges read from the database at scrape time and kept for a moment."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._fresh_until = 0.0

    async def lines(self, database: Database) -> list[str]:
        """The lines, at most a moment old; without the database only `replay_database_up 0`."""
        started = time.monotonic()
        if started < self._fresh_until:
            return self._lines
        try:
            async with asyncio.timeout(SCRAPE_S), database.connection(ANSWER_S) as conn:
                self._lines = await _read_gauges(conn)
        except (psycopg.Error, TimeoutError):
            return [*heading("replay_database_up", "gauge", "Whether the database answers."), "replay_database_up 0"]
        now = time.monotonic()
        self._fresh_until = now + max(MIN_GAUGE_AGE_S, GAUGE_COST_SHARE * (now - started))
        return self._lines


async def _read_gauges(conn: Connection) -> list[str]:
    outbox = await fetch_row(conn, "count_outbox")
    pending, held, lag_s = outbox or (0, 0, 0.0)
    letters = {"pending": 0, "replaying": 0} | dict(await fetch_rows(conn, "count_dead_letters"))
    tasks = {"queued": 0, "running": 0, "completed": 0, "failed": 0} | dict(await fetch_rows(conn, "count_agent_tasks"))
    return [
        *heading("replay_database_up", "gauge", "Whether the database answers."),
        "replay_database_up 1",
        *heading("outbox_pending", "gauge", "Events not yet delivered and not held."),
        sample("outbox_pending", (), (), pending),
        *heading("outbox_held", "gauge", "Events held because their company is paused or switched off."),
        sample("outbox_held", (), (), held),
        *heading("outbox_lag_seconds", "gauge", "Age of the oldest event not yet delivered and not held."),
        sample("outbox_lag_seconds", (), (), lag_s),
        *heading("dlq_items", "gauge", "Dead letters that are not settled, by status."),
        *(sample("dlq_items", ("status",), (status,), count) for status, count in sorted(letters.items())),
        *heading("agent_tasks_total", "counter", "Effects in the database, by status."),
        *(sample("agent_tasks_total", ("status",), (status,), count) for status, count in sorted(tasks.items())),
    ]
