"""Samples the backlog through the whole run. It is no check: it tells a slow outbox from one that catches up."""

import contextlib
import datetime as dt
import time
from pathlib import Path
from typing import Self

import psycopg

from gates.deployment.sql.database import Connection, connect, sql, value
from gates.deployment.tenants.leftovers import sweep
from gates.evidence import Evidence, JsonValue, Outcome, stamp
from gates.stages.companion import Companion
from gates.stages.context import Context

BACKLOG = "watch/outbox-backlog"
QUERY = Path(__file__).with_name("queries") / "backlog.sql"
INTERVAL_S = 2.0
MOST_SAMPLES = 1000


class BacklogWatch:
    """A context that samples `[seconds, events waiting]` and writes them as one line of evidence at its end.

    First it removes what a killed run left, whose dead letters would be blamed on the release. A database error ends
    the sampling, not the run: without the line, a failing lag is judged by itself.
    """

    def __init__(self, context: Context, interval_s: float = INTERVAL_S) -> None:
        self._context, self._interval_s = context, interval_s
        self._samples: list[JsonValue] = []
        self._started = time.monotonic()
        self._started_at = dt.datetime.now(dt.UTC)
        self._companion = Companion("backlog-watch", self._run)

    def __enter__(self) -> Self:
        target = self._context.target
        if target.database_url:
            with contextlib.suppress(psycopg.Error):  # what stays counts as backlog; its names show which run left it
                sweep(target.database_url, target.test_company_id)
            self._companion.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._companion.end()
        if self._samples:
            self._context.note(self._evidence())

    def _evidence(self) -> Evidence:
        samples = list(self._samples)
        last = samples[-1]
        return Evidence(
            check=BACKLOG,
            outcome=Outcome.PASS,
            observed=last[1] if isinstance(last, list) else None,
            unit="events",
            samples=len(samples),
            started_at=stamp(self._started_at),
            duration_ms=round((time.monotonic() - self._started) * 1000, 1),
            details={"samples": samples},
        )

    def _run(self) -> None:
        try:
            connection = connect(self._context.target.database_url, read_only=True)
        except psycopg.Error:
            return
        with connection:
            self._sample(connection)

    def _sample(self, connection: Connection) -> None:
        while len(self._samples) < MOST_SAMPLES:
            try:
                waiting = value(connection, sql(QUERY))
            except psycopg.Error:
                return
            self._samples.append([round(time.monotonic() - self._started, 2), int(str(waiting))])
            if self._companion.over.wait(self._interval_s):
                return
