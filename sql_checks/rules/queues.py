"""The checks of queues: alert rules over the notions of a preset (`queues/rules.yaml`, `gates.contract.queues`)."""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import psycopg
import pytest

from gates.checks.observation import Observer
from gates.contract.fragments import PLACE, FragmentError
from gates.contract.queues import FOLDER, NEED, NOTIONS, Queue, QueueSchema
from gates.deployment.queue.schema import QueueLook, look_at
from gates.deployment.sql.database import Connection, execute
from gates.errors import first_line
from gates.evidence import Outcome, Severity
from sql_checks.rules.file import ORDER, AlertRule, read_rules
from sql_checks.rules.judge import judge_proved
from sql_checks.rules.run import Measurement, conclude, measure
from sql_checks.sqlsession import SqlSession

RULES = FOLDER / "rules.yaml"
STAGE = "queue"
ABSENT = (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction)
ZONE = "set local timezone to 'UTC'"
"""What libraries write without a zone is UTC, whatever the database's own sessions have."""
SIGHT = "preflight/database-role-sees-rows"
LOOKS, LOOKS_S, PAUSE_S = 3, 2.0, 0.05
"""So often and for so long at least a check of what waits is asked again where it fails: between two jobs of a lane all
later ones seem to wait. What does wait is there at each look.
"""


@cache
def read_queue_rules(path: Path = RULES) -> tuple[AlertRule, ...]:
    """The rules with their notions as places; `needs` of each says which. Raise ConfigError."""
    return tuple(_with_needs(rule) for rule in read_rules(path, STAGE, lambda query: query))


def _with_needs(rule: AlertRule) -> AlertRule:
    notions = tuple(f"{NEED}{name}" for name in notions_of(rule))
    return replace(
        rule, spec=replace(rule.spec, needs=("database", *notions), after=("preflight/database-role-sees-rows",))
    )


def notions_of(rule: AlertRule) -> list[str]:
    """The notions that a rule speaks of."""
    return sorted({name for name in PLACE.findall(rule.source) if name in NOTIONS})


def bound(rule: AlertRule, queue: Queue, schema: QueueSchema | None = None) -> AlertRule:
    """The rule with the names and limits of one queue. Raise FragmentError where the queue has no such notion."""
    given = {**queue.preset.limits.get(rule.name, {}), **queue.options.limits.get(rule.name, {})}
    limits = tuple((s, float(given[s.value])) for s in ORDER if s.value in given) or rule.limits
    worst = next((limit for severity, limit in limits if severity is Severity.PAGE), limits[0][1])
    return replace(rule, limits=limits, query=queue.written(rule.query, schema, worst_limit=f"{worst:g}"))


def rules_of(queue: Queue, schema: QueueSchema | None = None) -> Iterator[AlertRule]:
    """The rules that apply to a queue, with its names."""
    absent = queue.absent(schema)
    for rule in read_queue_rules():
        if not set(notions_of(rule)) & set(absent):
            yield bound(rule, queue, schema)


class QueueSession:
    """The queue of a run, looked at once."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self._look: QueueLook | None = None

    def look(self, connection: Connection) -> QueueLook:
        """Read the queue's schema. Raise psycopg.Error."""
        if self._look is None:
            self._look = look_at(self.queue, connection)
        return self._look

    def judge(self, rule: AlertRule, session: SqlSession, observer: Observer) -> None:
        """Raise AssertionError where a limit is broken; end as unknown where too little was seen."""
        own, measured = self._measured(rule, session, observer)
        left, last = LOOKS if rule.window == "now" and "waiting" in notions_of(rule) else 0, time.monotonic() + LOOKS_S
        while left and judge_proved(own, measured.samples, measured.now).outcome is Outcome.FAIL:
            time.sleep(PAUSE_S)
            own, measured = self._measured(rule, session, observer)
            left -= left > 1 or time.monotonic() > last
        conclude(own, measured, observer)

    def _measured(self, rule: AlertRule, session: SqlSession, observer: Observer) -> tuple[AlertRule, Measurement]:
        with session.snapshot() as connection:
            execute(connection, ZONE)
            look = self.look(connection)
            observer.require(not look.trouble, look.trouble)
            absent = self.queue.absent(look.schema)
            lacking = [absent[name] for name in notions_of(rule) if name in absent]
            if lacking:
                pytest.skip(f"not applicable: {'; '.join(lacking)}")
            try:
                own = bound(rule, self.queue, look.schema)
            except FragmentError:
                missing = [n for n in notions_of(rule) if n not in self.queue.fragments(look.schema)]
                observer.unmet(f"{self.queue.preset.title} here has not what shows {', '.join(missing)}")
            try:
                return own, measure(own, connection)
            except psycopg.errors.LockNotAvailable:
                raise  # the session says who holds it
            except psycopg.Error as error:
                observer.unmet(_explained(error, self.queue))


def _explained(error: psycopg.Error, queue: Queue) -> str:
    """What a failed query means for the deployment, in place of the server's bare error."""
    title, said = queue.preset.title, first_line(error)
    if isinstance(error, psycopg.errors.QueryCanceled):
        return f"the tables of {title} are too large to be read in time. Remove old jobs, or give the stage more time"
    if isinstance(error, psycopg.DataError) and queue.options.tenant:
        return (
            f"the tenant of a job cannot be read: {said}. A payload is not what {queue.options.tenant} (`contract:"
            " options: tenant`) expects: find it by that expression, and see who wrote it"
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return f"the login may not read all of {title}: {said}. Grant what docs/presets.md names"
    if isinstance(
        error, psycopg.errors.UndefinedColumn | psycopg.errors.UndefinedTable | psycopg.errors.UndefinedFunction
    ):
        tenant = " See the tenant expression in `contract: options:`" if queue.options.tenant else ""
        return f"the tables of {title} differ from those that were tried ({queue.preset.tried}): {said}.{tenant}"
    return f"{title} could not be asked: {said}"
