"""The audit trail in one run: from the checkpoint of an earlier run to a new one, if all checks pass."""

import datetime as dt
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from gates.checks.observation import Observer
from gates.deployment.redaction import hidden, redact_text
from gates.deployment.sql.database import value
from sql_checks import checkpoint
from sql_checks.checkpoint import Checkpoint, CheckpointError
from sql_checks.spotfile import SpotCheck
from sql_checks.spotrun import judge_spot
from sql_checks.sqlsession import SqlSession


@dataclass
class CheckpointTrail:
    """The checkpoint of an earlier run (`before`, or the `problem` with it), and that of this one (`reached`)."""

    path: Path
    database: str
    before: Checkpoint | None
    problem: str
    reached: Checkpoint | None
    server_started_at: dt.datetime
    is_deep: bool
    passed: set[str] = field(default_factory=set)

    def judge(self, spot: SpotCheck, session: SqlSession, observer: Observer, *, required: bool = False) -> None:
        """Judge one check of the trail, and write the checkpoint when it was the last of them to pass.

        required: that no earlier run verified the trail is unknown. So is a checkpoint that cannot be used.
        """
        observer.details["trail"] = self._said()
        if spot.spec.id == checkpoint.CHECK:
            self._require_usable(observer, required=required)
        try:
            judge_spot(spot, session, observer)
        except AssertionError as error:
            if spot.spec.id == checkpoint.CHECK:
                self._allow_for_a_restore(error, observer)
            raise
        observer.control(self._said())
        self.passed.add(spot.spec.id)
        if not self.problem and self.reached is not None and self.passed >= checkpoint.TRAIL:
            self._write(self.reached, observer)

    def _require_usable(self, observer: Observer, *, required: bool) -> None:
        if self.problem:
            observer.unmet(self.problem)
        if required and self.before is None:
            observer.unmet(
                f"{self.path}: there is no checkpoint of this database, and `sql.require_checkpoint` wants one."
                " Keep the state folder between runs; make a first one with a run that does not require it"
            )

    def _allow_for_a_restore(self, error: AssertionError, observer: Observer) -> None:
        """A server that was started after the checkpoint may have been restored from a backup: unknown."""
        if self.before is not None and self.before.server_started_at != self.server_started_at:
            observer.unmet(
                f"{error} The server was started since: it may have been restored from a backup."
                f" Compare it with one; if it was, remove {self.path}, and run `gate sql --deep`"
            )

    def _write(self, reached: Checkpoint, observer: Observer) -> None:
        """Write the checkpoint, without scopes whose name contains a secret: these are read anew each time."""
        hide = hidden(observer.target)
        scopes = {scope: last for scope, last in reached.scopes.items() if redact_text(scope, hide) == scope}
        reached = replace(reached, scopes=scopes)
        try:
            checkpoint.write(self.path, reached, self.before)
        except OSError as error:
            observer.unmet(f"{self.path}: the checkpoint cannot be written: {error}. Name another folder with --state")

    def _said(self) -> str:
        if self.problem:
            said = "the checkpoint cannot be used: the newest 10,000 rows are read"
        elif self.before is None:
            said = "no checkpoint of this database yet: the newest 10,000 rows are read, older ones are not"
        else:
            at = f"{self.before.written_at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
            said = f"goes on after row {self.before.last_id}, up to which the trail was verified at {at}"
        if self.is_deep:
            said = "all rows are read"
        elif self.reached is not None and self.reached.is_behind:
            said += f"; more is new than a run reads: without a gap to row {self.reached.last_id}, and the newest 5,000"
        return said


def open_trail(session: SqlSession, folder: Path) -> CheckpointTrail:
    """Look for the checkpoint of this database and hand it to the queries. Raise psycopg.Error."""
    before, problem = None, ""
    with session.snapshot() as connection:
        database = checkpoint.identify(connection)
    path = checkpoint.file_of(folder, database)
    now, started = (
        cast("dt.datetime", value(session.connection, f"select {clock}()"))
        for clock in ("now", "pg_postmaster_start_time")
    )
    try:
        before = checkpoint.read(path, database, now)
    except CheckpointError as error:
        problem = str(error)
    if before is not None:
        session.give(before.settings())
    with session.snapshot() as connection:
        reached = checkpoint.position(connection, database)
    return CheckpointTrail(path, database, before, problem, reached, started, session.deep)
