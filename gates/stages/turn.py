"""One run at a time: drills and load of another gate would change what this one judges.

A second gate pauses the fleet, flips flags and leaves dead letters for a while; the first would blame the release for
them. The later gate looks at nothing and holds.
"""

from typing import Self

import psycopg

from gates.deployment.sql.connection import Answering
from gates.deployment.sql.database import STANDBY, connect
from gates.deployment.sql.failures import in_words
from gates.evidence import CheckSpec, Evidence, Outcome, Severity, Where
from gates.stages.companion import Companion
from gates.stages.context import Context
from gates.stages.preflight.endpoints import RELEASE

SPEC = CheckSpec(
    "preflight/alone",
    "No other run of the gate examines the same deployment at the same time.",
    "Two runs take what the other does for what the release does, and a healthy release is rolled back.",
    Severity.WARN,
    Where.READ_ONLY,
    after=("preflight/database",),
    phase="first",
)
ANOTHER_RUN = "another run of the gate is examining this deployment; run again when it has ended"
RENEW_S = 10.0
"""The lock belongs to a transaction, whose session no pooler lends to others; none of them lasts long."""
TAKE = "select pg_try_advisory_xact_lock(hashtextextended('replaygate run', 0)) as taken"


class Turn:
    """A context that holds the deployment's lock. busy: another run has it, and nothing may be looked at. lost: why it
    is no longer held. Without a database nobody is kept away; the check is then unknown, like all that needs SQL.
    """

    def __init__(self, context: Context, renew_s: float = RENEW_S) -> None:
        self._context, self._renew_s = context, renew_s
        self._connection: Answering | None = None
        self._companion = Companion("turn", self._keep)
        self.busy = False
        self.lost = ""

    def __enter__(self) -> Self:
        if not self._context.has(SPEC):
            return self
        if not self._context.target.database_url:
            self._note(Outcome.UNKNOWN, "blocked by preflight/database", blocked_by="preflight/database")
            return self
        try:
            self.busy = not self._take()
        except (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.FeatureNotSupported):
            self._note(Outcome.UNKNOWN, STANDBY)
            return self
        except psycopg.Error as error:
            self._note(Outcome.UNKNOWN, f"whether another run is under way cannot be told: {in_words(error)}")
            return self
        if self.busy:
            self._note(Outcome.UNKNOWN, ANOTHER_RUN)
        else:
            self._note(Outcome.PASS, "")
            self._companion.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._companion.end()
        if self._connection is not None:
            self._connection.close()
        if self.lost:
            self._note(Outcome.UNKNOWN, self.lost)

    def block(self) -> None:
        """Write that none of the checks after the preflight was made."""
        expected = self._context.applicable(("sql/", "alert/", "cohort/", "drill/", "load/", RELEASE.id))
        already = len(self._context.lines())
        self._context.account_for(expected, f"blocked by {SPEC.id}: {ANOTHER_RUN}", already=already, blocked_by=SPEC.id)

    def _take(self) -> bool:
        """Release and retake the lock in one message, so that no other run can take it in between."""
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._context.target.database_url, autocommit=False)
        if self._connection.info.transaction_status is psycopg.pq.TransactionStatus.INTRANS:
            with self._connection.pipeline():
                self._connection.execute("commit and chain")
                self._connection.pin()
                cursor = self._connection.execute(TAKE)
        else:
            cursor = self._connection.execute(TAKE)
        row = cursor.fetchone()
        return row is not None and row["taken"] is True

    def _keep(self) -> None:
        while not self._companion.over.wait(self._renew_s):
            try:
                if not self._take():
                    self.lost = f"the turn was lost to another run of the gate: {ANOTHER_RUN}"
                    return
            except psycopg.Error:  # a drill may have restarted the server: the next round asks again
                if self._connection is not None:
                    self._connection.close()

    def _note(self, outcome: Outcome, message: str, blocked_by: str = "") -> None:
        self._context.note(Evidence(SPEC.id, outcome, message, samples=1, blocked_by=blocked_by))
